//go:build race

package session

// exploreRace says that the race detector is on, with which each step takes ten times as long.
const exploreRace = true
