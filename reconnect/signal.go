package reconnect

// signal wakes everybody who waits for a state to change. It is guarded by the mutex that guards that state.
type signal struct{ ch chan struct{} }

// wait returns a channel that the next broadcast closes.
func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// gate is closed once, for good. The mutex guards it that guards what closes it.
type gate struct{ ch chan struct{} } // nil until somebody waits; shut when it was closed before that

// shut is a channel that is closed.
var shut = func() chan struct{} { ch := make(chan struct{}); close(ch); return ch }()

// wait returns a channel that is closed when the gate is.
func (g *gate) wait() <-chan struct{} {
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	return g.ch
}

// closed reports whether the gate is.
func (g *gate) closed() bool {
	select {
	case <-g.ch: // nil is ready never
		return true
	default:
		return false
	}
}

// close closes the gate, if it is not closed.
func (g *gate) close() {
	switch {
	case g.ch == nil:
		g.ch = shut
	case !g.closed():
		close(g.ch)
	}
}

func (s *signal) broadcast() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
