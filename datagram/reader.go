package datagram

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// How a Reader takes memory, in bytes.
const (
	// minSlab and maxSlab bound the buffer that many small frames share. It doubles when a read fills it.
	minSlab = 4 << 10
	maxSlab = 64 << 10
	// maxAhead is how much may be held beyond the bytes that have arrived.
	maxAhead = 64 << 10
	// largeFrame is the frame that gets a buffer of its own, of just its length.
	largeFrame = 16 << 10
	// peekSize is what is read of a stream of large frames before the next length is known: few bytes, because
	// they are copied. A large frame's own buffer has room for the next frame's, so that one read brings both. It is
	// also the first buffer after Idle.
	peekSize = 512
	// minFree is the least free part of a slab that is worth a read.
	minFree = 256

	maxEmptyReads = 100
)

// Reader takes datagrams from a stream, wherever its reads begin and end.
//
// The payloads belong to the caller, for as long as wanted: the Reader never writes to them again. Payloads of small
// frames that arrived together share one buffer of up to 64 KiB, which lives as long as one of them does; see
// Datagram.Clone. Who is done with a large one may give its memory back with Release.
//
// Read is all that most callers need. Next and Fill are its two halves, for code that parses under a lock and waits
// outside of it. Frames takes what Next does, but whole runs of it, unparsed. The calls may be mixed freely. A Reader
// must not be used by two goroutines at once.
type Reader struct {
	r       io.Reader
	limit   uint64
	framing Framing
	control bool // Frames lets control frames through

	// slab[start:end] has arrived and was not taken. What lies before start belongs to those who got payloads; what
	// lies after end is free. handed says that such payloads exist, so that the front must not be written again.
	slab       []byte
	start, end int
	handed     bool
	lease      *lease // of the slab; nil while it has none
	kept       bool   // a payload of it was handed out alone, not in a run

	need  int    // the length that slab[start:end] must reach before parsing can say more
	seen  int    // how much of it the last parse saw
	large *large // a frame that is being gathered in pieces, or nil

	slabSize int    // of the next slab for small frames
	peek     bool   // the last frame was a large one
	lean     bool   // little is expected: the next slab is of peekSize
	peekSlab []byte // of peekSize, and free; or nil
	begun    bool   // a whole frame was read, so that the peer speaks the protocol
	pending  error  // came with the last bytes; to be returned after them
	err      error  // final
}

// NewReader returns a Reader on r. nil Options are the defaults. It takes no memory for frames before the first Fill.
func NewReader(r io.Reader, o *Options) *Reader {
	return &Reader{
		r: r, limit: o.limit(), framing: o.framing(), control: o.control() && o.framing() == nil, slabSize: minSlab,
	}
}

// Idle says that nothing much is expected for a while: the Reader lets its memory go, and the next Fill reads into 512
// bytes, behind which come larger buffers again as soon as they are needed. What has arrived and was not taken stays, and
// then nothing happens. It never blocks.
func (r *Reader) Idle() {
	if r.end > r.start || r.large != nil {
		return
	}
	if len(r.slab) > peekSize {
		r.setSlab(nil, nil, 0)
	}
	r.slabSize, r.lean, r.peek, r.peekSlab = minSlab, true, false, nil
}

// Read returns the next datagram, and blocks while the stream has none.
//
// The end of the stream is io.EOF at a frame's edge and io.ErrUnexpectedEOF inside a frame. A frame that breaks the
// rules or the limit is a *FrameError. All of these are final. Another error is the stream's own; after one that
// passes, such as a deadline, Read can be called again and nothing is lost.
func (r *Reader) Read() (Datagram, error) {
	for {
		d, ok, err := r.Next()
		if ok || err != nil {
			return d, err
		}
		if err := r.Fill(); err != nil {
			return Datagram{}, err
		}
	}
}

// Next returns a datagram if one has wholly arrived, and never blocks: false without an error means that Fill is
// needed. The errors are those of a bad frame, and final. A control frame is one, also with Options.Control.
func (r *Reader) Next() (Datagram, bool, error) {
	have := r.end - r.start
	if have < r.need || r.large != nil || r.err != nil {
		return Datagram{}, false, r.err
	}
	if r.framing == nil && have >= HeaderSize {
		v := binary.BigEndian.Uint64(r.slab[r.start:])
		payload := v>>32 - sizeOverhead // a size below 4 wraps to more than any limit
		if uint16(v>>16) == Version && payload <= r.limit && payload <= uint64(have-HeaderSize) {
			from := r.start + HeaderSize
			to := from + int(payload)
			r.keep()
			d := Datagram{Recipient: uint16(v), Payload: r.slab[from:to:to]}
			if payload >= largeFrame {
				d.Payload = r.tookLarge(from, to)
			} else {
				r.took(to)
			}
			return d, true, nil
		}
	}
	return r.parse()
}

// took moves start to the end of a frame.
func (r *Reader) took(to int) {
	r.peek = to-r.start >= largeFrame
	r.start = to
	r.need, r.seen = 1, 0
	r.begun, r.handed = true, true
}

// tookLarge is took for a frame that may have had a buffer of its own. The owner of the payload then gets all of that
// buffer, for Release to give back, and what arrived behind the frame moves to other memory, so that a small payload
// kept for long does not keep a large one's.
func (r *Reader) tookLarge(from, to int) []byte {
	slab, alone := r.slab, r.start == 0 && len(r.slab)-to <= peekSize
	r.took(to)
	if !alone {
		return slab[from:to:to]
	}
	r.move(max(peekSize, r.end-r.start))
	return slab[from:to]
}

// parse is Next for all that is not a whole frame with the 8-byte header.
func (r *Reader) parse() (d Datagram, ok bool, err error) {
	src := r.slab[r.start:r.end]
	var n, need int
	switch {
	case r.framing == nil:
		d, n, need, err = parse(src, r.limit, false)
	case len(src) == 0:
		need = 1
	default:
		d, n, need, err = r.framing.Next(src, r.seen)
		switch {
		case err != nil:
		case n < 0 || n > len(src) || n == 0 && need <= len(src):
			err = &FrameError{Err: ErrFraming, Detail: "the framing returned an impossible length"}
		case uint64(len(d.Payload)) > r.limit:
			err = &FrameError{Err: ErrTooLarge, Value: uint64(len(d.Payload)), Limit: r.limit}
		case n == 0 && uint64(need) > r.limit+framingSlack:
			err = &FrameError{Err: ErrTooLarge, Value: uint64(need), Limit: r.limit}
		}
	}
	if err != nil {
		return Datagram{}, false, r.refuse(err)
	}
	if n == 0 {
		r.need, r.seen = need, len(src)
		return Datagram{}, false, nil
	}
	// The payload's owner may append to it: that must not reach the frames behind, whatever the framing left there.
	d.Payload = d.Payload[:len(d.Payload):len(d.Payload)]
	r.keep()
	r.took(r.start + n)
	return d, true, nil
}

// refuse ends reading at a bad frame, and returns what the caller is told.
func (r *Reader) refuse(err error) error {
	r.err = r.explain(err)
	r.setSlab(nil, nil, 0)
	return r.err
}

// explain adds to the error of a first frame what the peer seems to speak. It adds to a copy: a Framing may return one
// error value on many connections.
func (r *Reader) explain(err error) error {
	e, ok := err.(*FrameError) //nolint:errorlint // a wrapped one says more than we could
	if ok && r.control && e.Err == ErrVersion && e.Value == ControlVersion {
		e.Detail = "a control frame, which only Frames takes" // e is our own: control goes with no Framing
	}
	if r.begun || !ok || e.Detail != "" {
		return err
	}
	told := *e
	told.Detail = explain(r.slab[r.start:r.end])
	return &told
}

// framingSlack is how much longer than the largest payload an unfinished frame of a Framing may be.
const framingSlack = 4 << 10

// Fill reads from the stream once, so that Next or Frames may find more. It blocks as the stream's Read does. It must
// only be called after one of them has said that it needs more.
//
// Its errors are those of Read. An error that came with the last bytes is returned by the Fill after them.
func (r *Reader) Fill() error {
	if r.err != nil {
		return r.err
	}
	if r.pending != nil {
		return r.fail(r.pending)
	}
	var p []byte
	if r.large != nil {
		p = r.large.room()
	} else {
		p = r.room()
	}
	n, err := r.read(p)
	if r.large != nil {
		if r.large.add(n) {
			r.adopt()
		}
	} else {
		r.grow(n, len(p))
		r.end += n
	}
	if err != nil && n > 0 {
		if !errors.Is(err, os.ErrDeadlineExceeded) { // of that the next Read tells, if it still holds
			r.pending = err
		}
		err = nil
	}
	if err != nil {
		return r.fail(err)
	}
	return nil
}

// fail turns an error of the stream into what the caller is told. Only the end of the stream is final here:
// whether another error passes is for the stream to say, at the next read.
func (r *Reader) fail(err error) error {
	r.pending = nil
	if !errors.Is(err, io.EOF) {
		return err
	}
	r.err = io.EOF
	if r.end > r.start || r.large != nil {
		r.err = io.ErrUnexpectedEOF
	}
	r.setSlab(nil, nil, 0)
	r.large = nil
	return r.err
}

// read calls the stream's Read until it gives a byte or an error.
func (r *Reader) read(p []byte) (int, error) {
	for range maxEmptyReads {
		n, err := r.r.Read(p)
		if n < 0 || n > len(p) {
			return 0, errors.New("datagram: reader returned an impossible count")
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// grow adapts the size of slabs to a read that brought n of the asked bytes.
func (r *Reader) grow(n, asked int) {
	switch {
	case n == asked && asked >= r.slabSize/2:
		r.slabSize = min(2*r.slabSize, maxSlab)
	case n < r.slabSize/8 && r.start == 0 && !r.handed:
		r.slabSize = max(r.slabSize/2, minSlab)
	}
}

// room returns the free memory to read into next. It moves the beginning of a frame to another buffer when the
// slab cannot take the rest.
//
// Invariant: what is returned is at most maxAhead long, and so is what is newly allocated but for what it takes
// over. (A Framing may cost as much again as has arrived.)
func (r *Reader) room() []byte {
	have := r.end - r.start
	if r.handed && r.lease != nil && r.lease.refs.Load() == 1 {
		r.handed = false // all that was handed out of it was given back
	}
	if have == 0 && !r.handed {
		r.start, r.end = 0, 0
	}
	want := have + 1 // the slab must be able to take this, from start
	if r.framing == nil {
		want = max(want, r.need, HeaderSize) // need may be less: a header is judged in steps
	}
	if free := len(r.slab) - r.end; r.start+want <= len(r.slab) && (have > 0 || free >= minFree) {
		return r.ahead()
	}
	switch {
	case r.framing != nil:
		// Twice what has arrived, or the search for the end of a long frame would copy it over and over.
		r.move(max(min(r.need, have+maxAhead), have+max(r.slabSize, have)))
	case want > have+maxAhead:
		r.large = newLarge(want, r.slab[r.start:r.end])
		r.setSlab(nil, nil, 0)
		return r.large.room()
	case have == 0 && (r.peek || r.lean):
		r.lean = false
		r.move(peekSize)
	case want >= largeFrame:
		r.moveTo(frameSlab(want, have), nil)
	default:
		r.move(max(r.slabSize, want))
	}
	return r.ahead()
}

// ahead returns the free part of the slab, as much of it as one read may fill.
func (r *Reader) ahead() []byte { return r.slab[r.end:min(len(r.slab), r.end+maxAhead)] }

// move takes what is buffered over to another slab of size bytes.
func (r *Reader) move(size int) {
	if size == peekSize && r.peekSlab != nil {
		slab := r.peekSlab
		r.peekSlab = nil
		r.moveTo(slab, nil)
		return
	}
	r.moveTo(newSlab(size))
}

func (r *Reader) moveTo(slab []byte, l *lease) {
	n := copy(slab, r.slab[r.start:r.end])
	if len(r.slab) == peekSize && !r.handed {
		r.peekSlab = r.slab
	}
	r.setSlab(slab, l, n)
}

// setSlab makes slab, which holds n bytes, the one to read into.
func (r *Reader) setSlab(slab []byte, l *lease, n int) {
	old := r.lease
	r.slab, r.lease, r.start, r.end, r.handed, r.kept = slab, l, 0, n, false, false
	old.done()
}

// adopt makes the large frame, whose last bytes are about to arrive, the slab.
func (r *Reader) adopt() {
	slab, n := r.large.join()
	r.setSlab(slab, nil, n)
	r.large = nil
}
