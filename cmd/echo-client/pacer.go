package main

import "time"

// pacer spreads datagrams evenly over time. The k-th is due k/rate seconds after the first, whenever the others went
// out, so that nothing drifts: what was held up is caught up with.
type pacer struct {
	rate  float64 // a second; 0: no pacing
	start time.Time
	taken uint64
	timer *time.Timer
}

// take returns how many of max datagrams may go out now, and waits until it is one; 0 if stop ended the wait.
func (p *pacer) take(max int, stop <-chan struct{}) int {
	if p.rate == 0 {
		return max
	}
	if p.start.IsZero() {
		p.start = time.Now()
		p.timer = time.NewTimer(0)
		<-p.timer.C
	}
	for {
		n, wait := p.due(time.Since(p.start))
		if n > 0 {
			n = min(n, uint64(max))
			p.taken += n
			return int(n)
		}
		p.timer.Reset(wait)
		select {
		case <-p.timer.C:
		case <-stop:
			return 0
		}
	}
}

// giveBack says that n of those that take returned did not go out.
func (p *pacer) giveBack(n int) {
	if p.rate > 0 {
		p.taken -= uint64(n)
	}
}

// due returns how many more datagrams are due at a time, or how long it is until the next one is.
func (p *pacer) due(elapsed time.Duration) (n uint64, wait time.Duration) {
	due := uint64(elapsed.Seconds()*p.rate) + 1
	if due > p.taken {
		return due - p.taken, 0
	}
	at := time.Duration(float64(p.taken) / p.rate * float64(time.Second))
	return 0, max(at-elapsed, time.Microsecond)
}
