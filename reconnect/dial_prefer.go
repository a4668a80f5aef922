package reconnect

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/towline-mq/towline/redial"
)

// prefer tries what is preferred to a fallback from time to time, until the function that it returns is called.
func (g *dialing) prefer(l *link, rl *redial.Link) (stop func()) {
	if rl.ReturnAfter <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(g.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		timer := time.NewTimer(rl.ReturnAfter)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			better, err := g.rd.DialPreferred(ctx, rl)
			if err == nil {
				g.s.mu.Lock()
				if g.s.link == l && !g.s.ended && ctx.Err() == nil {
					g.next, better = better, nil
					g.s.lose(l, errPreferred)
					g.s.note()
				}
				g.s.mu.Unlock()
				if better != nil {
					closeNow(better.Conn)
				}
				return
			}
			timer.Reset(rl.ReturnAfter)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

var errPreferred = errors.New("reconnect: back to an endpoint that is preferred")
