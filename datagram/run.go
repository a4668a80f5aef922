package datagram

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Run is a run of whole frames of one version, one after the other as they came on the wire. The zero Run is an empty
// one.
type Run struct {
	Raw     []byte // the frames, headers included
	N       int    // how many
	Version uint16 // Version, or ControlVersion: then N is 1

	lease *lease // of the memory, if it can be given back
}

// Release gives the memory of the run back, to receive others in. Calling it is never necessary: memory that is not given
// back is collected as usual. It must be called once, on the run as Frames returned it or on a copy of that, however many
// frames were taken off; nobody may use Raw, or any payload of it, after that. The function Release must not be called for
// a payload of a run that is released.
func (run *Run) Release() {
	if run.lease == kept {
		return
	}
	if run.lease != nil {
		run.lease.done()
		return
	}
	if run.N == 1 && len(run.Raw) >= HeaderSize {
		Release(Datagram{Payload: run.Raw[HeaderSize:]})
	}
}

// Keep says that a payload of the run was given away for good: Release, of the run and of copies that are made from then on,
// does nothing.
func (run *Run) Keep() { run.lease = kept }

// kept is the lease of runs that are never given back.
var kept = new(lease)

// Next takes the first frame off the run: d is its recipient and its payload, which is a slice of Raw. ok is false
// where no frame is left. Of a control frame Recipient is the kind.
//
// A payload's capacity is its length, so that its owner may append to it; but the last one's goes as far as Raw's, so
// that Release takes all of a large frame's memory. The headers are not checked again: Next panics if Raw is not whole
// frames, as that of a Run from Frames always is.
func (run *Run) Next() (d Datagram, ok bool) {
	raw := run.Raw
	if len(raw) == 0 {
		return Datagram{}, false
	}
	n := int(binary.BigEndian.Uint32(raw)) - sizeOverhead + HeaderSize
	d.Recipient = binary.BigEndian.Uint16(raw[6:])
	run.N--
	if n == len(raw) {
		run.Raw = nil // an empty slice would hold the memory
		d.Payload = raw[HeaderSize:]
		return d, true
	}
	run.Raw = raw[n:]
	d.Payload = raw[HeaderSize:n:n]
	return d, true
}

var errFramesFraming = fmt.Errorf("datagram: a Framing has no frames to take in runs: %w", errors.ErrUnsupported)

// Frames returns the longest run of whole frames of one version that have arrived. It never blocks, and does not copy
// what it returns. A run with N == 0, without an error, means that Fill is needed. A control frame, and a frame of 16
// KiB or more, is always a run of its own; other runs are 64 KiB long at most.
//
// The bytes belong to the caller as payloads do, for as long as wanted: the Reader never writes to them again. Runs of
// small frames share their buffers as payloads do, and their capacity is their length. A large frame's run may go on to
// the end of the buffer that was the frame's own: Release takes its payload, from Run.Next or as Raw[HeaderSize:], as
// it takes one from Read.
//
// Each frame has passed the checks of Next. The errors are those of a bad frame, come after all good ones, and are
// final. Without Options.Control a control frame matches ErrVersion; with it, one that is longer than MaxControl
// matches ErrTooLarge, as soon as its header says so. On a Reader with a Framing there is nothing to take: the error
// matches errors.ErrUnsupported, and Read goes on as if Frames had not been called.
func (r *Reader) Frames() (Run, error) {
	if r.framing != nil {
		return Run{}, errFramesFraming
	}
	have := r.end - r.start
	if have < r.need || r.large != nil || r.err != nil {
		return Run{}, r.err
	}
	src := r.slab[r.start:r.end]
	small := uint32(min(r.limit, largeFrame-HeaderSize-1)) // the largest payload to hop over
	n, count := 0, 0
	for have-n >= HeaderSize {
		h := src[n : n+HeaderSize]
		payload := binary.BigEndian.Uint32(h) - sizeOverhead // a size below 4 wraps to more than any limit
		to := n + HeaderSize + int(payload)
		if payload > small || to > have || binary.BigEndian.Uint16(h[4:]) != Version {
			break
		}
		n = to
		count++
	}
	if count == 0 {
		return r.frame(src)
	}
	r.took(r.start + n)
	r.peek = false // the run may be long, its frames are not
	return Run{Raw: src[:n:n], N: count, Version: Version, lease: r.leased()}, nil
}

// frame is Frames where no small datagram is the next in src.
func (r *Reader) frame(src []byte) (Run, error) {
	_, n, need, err := parse(src, r.limit, r.control)
	if err != nil {
		return Run{}, r.refuse(err)
	}
	if n == 0 {
		r.need, r.seen = need, len(src)
		return Run{}, nil
	}
	run := Run{Raw: src[:n:n], N: 1, Version: binary.BigEndian.Uint16(src[4:]), lease: r.leased()}
	if to := r.start + n; n-HeaderSize >= largeFrame {
		run.Raw = r.tookLarge(r.start, to)
	} else {
		r.took(to)
	}
	return run, nil
}
