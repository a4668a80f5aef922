//go:build race

package datagram_test

// raceEnabled: a sync.Pool forgets at random under the race detector, so that counts of allocations mean nothing.
const raceEnabled = true
