package mux

// UnderWay returns how many datagrams are kept account of until they are acknowledged.
func UnderWay(c *Conn) int {
	c.acks.mu.Lock()
	defer c.acks.mu.Unlock()
	return len(c.acks.work)
}
