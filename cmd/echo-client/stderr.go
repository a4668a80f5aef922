package main

import (
	"io"
	"sync"
)

// shared lets goroutines write to one place whole lines at a time, until close.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// close drops what is still written.
func (s *shared) close() {
	s.mu.Lock()
	s.w = io.Discard
	s.mu.Unlock()
}
