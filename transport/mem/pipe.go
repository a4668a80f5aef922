package mem

// Pipe returns the two ends of a connection that needs neither name nor listener. nil is the zero [Config]; its Backlog
// plays no part. Unlike those of [net.Pipe] its ends are buffered: a Write does not wait for a Read. [Up] is from a to
// b. Their addresses are "pipe:a" and "pipe:b".
func Pipe(cfg *Config) (a, b *Conn) {
	if cfg == nil {
		cfg = &Config{}
	}
	var all *Faults
	if cfg.Network != nil {
		all = &cfg.Network.faults
	}
	l := newLink(cfg.Buffer, Addr("pipe:a"), Addr("pipe:b"), all, cfg.Faults)
	return &l.a, &l.b
}
