package main

import (
	"context"
	"regexp"

	"github.com/towline-mq/towline/reconnect"
)

// sizes are the payloads that are measured one way.
var sizes = []int{64, 1 << 10, 64 << 10}

// tiny is the payload of round trips and the like.
const tiny = 64

// plan lists all that can be measured, in the order in which it takes turns: what is compared stands together, so that
// the machine is in the same mood for it. Quick leaves out what two minutes have no room for.
func (s *secrets) plan(quick bool) []bench {
	var all []bench
	for _, size := range sizes {
		for _, on := range transports {
			all = append(all, s.oneWayOf(on, size, quick)...)
			if on == "tcp" {
				for _, p := range peers() {
					all = append(all, p.oneWay(size)...)
				}
			}
		}
	}
	for _, on := range transports {
		all = append(all, s.roundTripsOf(on)...)
		if on == "tcp" {
			for _, p := range peers() {
				all = append(all, p.roundTrip()...)
			}
		}
	}
	return append(all, s.troubles(quick)...)
}

// troubles lists what is not about speed alone.
func (s *secrets) troubles(quick bool) []bench {
	all := []bench{
		{key{besideBulk, floor, "tcp", "", tiny}, measureRoundTrip(func(ctx context.Context) (*echo, error) { return s.floorBeside(ctx, "tcp", tiny) })},
	}
	for _, kind := range []string{session, plain} {
		all = append(all, bench{key{besideBulk, kind, "tcp", "", tiny}, measureRoundTrip(func(ctx context.Context) (*echo, error) {
			e, err := s.connect(ctx, kind, "tcp")
			if err != nil {
				return nil, err
			}
			return e.beside(tiny), nil
		})})
	}
	all = append(all,
		bench{key{recovery, floor, "tcp", "", tiny}, measureBareRecovery},
		bench{key{recovery, session, "tcp", "", tiny}, measureRecovery},
		bench{key{takeover, session, "tcp", "", tiny}, measureTakeover},
		bench{key{replay, session, "tcp", sizeName(1 << 20), 0}, measureReplay(1 << 20)},
		bench{key{replay, session, "tcp", sizeName(7 << 20), 0}, measureReplay(7 << 20)},
		bench{key{wireBytes, session, "tcp", "", tiny}, measureWire},
		bench{key{idleMemory, session, "tcp", "", 0}, measureIdle},
	)
	crowds := []int{10, 1000, 10_000}
	if quick {
		crowds = crowds[:2]
	} else {
		all = append(all, bench{key{death, session, "tcp", "", 0}, measureDeath(reconnect.SessionOptions{})})
	}
	for _, n := range crowds {
		all = append(all, bench{key{busyMany, session, "tcp", crowdName(n), tiny}, measureBusy(n)})
	}
	return all
}

// oneWayOf lists the floor and Towline, on one transport, with messages of one size.
func (s *secrets) oneWayOf(on string, size int, quick bool) []bench {
	all := []bench{
		{key{oneWay, floor, on, "", size}, measureOneWay(func(ctx context.Context) (*pipe, error) { return s.floorPipe(ctx, on, size, false) })},
		{key{oneWay, floor, on, kept, size}, measureOneWay(func(ctx context.Context) (*pipe, error) { return s.floorPipe(ctx, on, size, true) })},
	}
	modes := []string{single, batch, sixteen, lent, lentMany}
	if size == 64<<10 {
		modes = append(modes, released)
	}
	for _, mode := range modes {
		for _, kind := range []string{session, plain} {
			if quick && on != "tcp" && (mode != single && mode != lent || kind == plain) {
				continue
			}
			all = append(all, bench{
				key{oneWay, kind, on, mode, size},
				measureOneWay(func(ctx context.Context) (*pipe, error) {
					e, err := s.connect(ctx, kind, on)
					if err != nil {
						return nil, err
					}
					return e.pipe(mode, size), nil
				}),
			})
		}
	}
	return all
}

// roundTripsOf lists the floor and Towline, on one transport, asking and answering.
func (s *secrets) roundTripsOf(on string) []bench {
	all := []bench{{
		key{roundTrip, floor, on, "", tiny},
		measureRoundTrip(func(ctx context.Context) (*echo, error) { return s.floorEcho(ctx, on, tiny) }),
	}}
	for _, kind := range []string{session, plain} {
		all = append(all, bench{
			key{roundTrip, kind, on, "", tiny},
			measureRoundTrip(func(ctx context.Context) (*echo, error) {
				e, err := s.connect(ctx, kind, on)
				if err != nil {
					return nil, err
				}
				return e.echo(tiny), nil
			}),
		})
	}
	return all
}

// only keeps those of all whose key matches.
func only(all []bench, re *regexp.Regexp) []bench {
	var some []bench
	for _, b := range all {
		if re.MatchString(b.String()) {
			some = append(some, b)
		}
	}
	return some
}
