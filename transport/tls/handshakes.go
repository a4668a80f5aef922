package tls

import (
	"container/list"
	"net"
)

// handshakes are those that a listener has under way, in two queues with the oldest in front: of peers that have not
// said a word of TLS yet, and of peers that have. It has no lock of its own.
type handshakes struct {
	silent, spoken list.List
}

// handshake is one of them, from when its connection was accepted until it is handed over or closed.
type handshake struct {
	raw     net.Conn
	queue   *list.List // the one it stands in, or nil when it has left
	place   *list.Element
	dropped bool // to make room for a newer one
}

func (s *handshakes) len() int { return s.silent.Len() + s.spoken.Len() }

func (s *handshakes) add(raw net.Conn) *handshake {
	h := &handshake{raw: raw, queue: &s.silent}
	h.place = h.queue.PushBack(h)
	return h
}

// spoke notes that h's peer has sent its hello.
func (s *handshakes) spoke(h *handshake) {
	if h.queue == &s.silent {
		s.remove(h)
		h.queue = &s.spoken
		h.place = h.queue.PushBack(h)
	}
}

// remove takes h out, and tells whether it was still in.
func (s *handshakes) remove(h *handshake) bool {
	if h.queue == nil {
		return false
	}
	h.queue.Remove(h.place)
	h.queue, h.place = nil, nil
	return true
}

// drop takes out the one that is least likely to be missed: the oldest whose peer is silent, or else the oldest of all.
func (s *handshakes) drop() *handshake {
	e := s.silent.Front()
	if e == nil {
		e = s.spoken.Front()
	}
	h := e.Value.(*handshake)
	s.remove(h)
	h.dropped = true
	return h
}

// takeAll empties both queues.
func (s *handshakes) takeAll() []*handshake {
	var all []*handshake
	for s.len() > 0 {
		h := s.drop()
		h.dropped = false
		all = append(all, h)
	}
	return all
}
