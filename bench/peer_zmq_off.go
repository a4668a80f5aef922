//go:build !(zmq && cgo)

package main

func zmqPeer() peer {
	return peer{name: "libzmq", module: "github.com/pebbe/zmq4", skip: "built without it: go run -tags zmq . where libzmq and its headers are installed (make bench looks)"}
}
