package reconnect

// NewPlainAfter is NewPlain for a stream of which the first bytes were already read.
var NewPlainAfter = newPlain
