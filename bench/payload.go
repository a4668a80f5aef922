package main

import "math/rand/v2"

// payload returns size bytes that no compression makes shorter, the same each time.
func payload(size int) []byte {
	p := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(p) // never fails
	return p
}
