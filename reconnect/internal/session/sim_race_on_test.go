//go:build race

package session

// raceEnabled says that the race detector is on, with which all takes ten times as long.
const raceEnabled = true
