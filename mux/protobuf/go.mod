module github.com/towline-mq/towline/mux/protobuf

go 1.26.0

require (
	github.com/stretchr/testify v1.12.1
	github.com/towline-mq/towline v0.0.0
	go.uber.org/goleak v1.3.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/vmihailenco/msgpack/v5 v5.4.1 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/towline-mq/towline => ../..
