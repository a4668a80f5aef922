package mem

import "time"

// A deadline is a point in time that wakes those who wait for it. The link that owns it guards it.
type deadline struct {
	at    time.Time // zero: none
	timer *time.Timer
}

// set moves the deadline to t, or takes it away if t is zero. Once t has come those who wait at c look again, and find
// that it has passed.
func (d *deadline) set(t time.Time, c *Conn) {
	d.stop()
	if t.IsZero() {
		return
	}
	// Compared by the monotonic clock from here on, as the timer is, so that neither can be early for the other.
	now := time.Now()
	left := t.Sub(now)
	d.at = now.Add(left)
	switch {
	case left <= 0:
	case d.timer == nil:
		d.timer = time.AfterFunc(left, c.wake)
	default:
		d.timer.Reset(left)
	}
}

func (d *deadline) stop() {
	d.at = time.Time{}
	if d.timer != nil {
		d.timer.Stop()
	}
}

func (d *deadline) passed() bool {
	return !d.at.IsZero() && !time.Now().Before(d.at)
}
