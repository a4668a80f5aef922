SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.PHONY: build test race lint cover bench bench-quick bench-many bench-library big ci sim explore driver rapid nettest mutants conformance hostile fuzz chaos soak model
# Variables, as in make sim FROM=5000000 SEEDS=20000, reach the tests through the environment: docs/testing.md has them all.
FUZZTIME ?= 20m
GOTEST := go test -count=1 -timeout 0
figures := grep -av -e '^=== ' -e '^ *--- PASS' -e '^PASS$$' -e '^ok  ' # what a test says, the figures last

build: ; go build -o bin/ ./cmd/...
test:  ; go test ./...
race:  ; go test -race ./...
lint:  ; golangci-lint run ./...
cover: ; go test -coverprofile=cover.out ./... && go tool cover -func=cover.out
big:   ; TOWLINE_BIG=1 go test -count=1 -timeout 20m -v ./internal/blackbox
ci:    ; .ci/run

# Speed, beside the limit of the machine and beside peers (libzmq where it is installed): bench/doc.go. bench-many first, for bench shows its figures too.
zmq := $(shell pkg-config --exists libzmq 2>/dev/null && echo -tags zmq)
bench:         ; go -C bench run $(zmq) . -out ../docs/performance -doc ../docs/performance.md
bench-quick:   ; go -C bench run $(zmq) . -quick
bench-many:    ; go -C bench run . many -out ../docs/performance
bench-library: ; go test -run '^$$' -bench . ./datagram ./reconnect ./transport/...

# The proof: docs/testing.md says what each of these holds, and what it found when it was run at length.
sim: export SEEDS ?= 1000000
sim:         ; @$(GOTEST) -v -run '^TestSim$$' ./reconnect/internal/session | $(figures)
explore: export EXPLORE ?= full
explore:     ; @$(GOTEST) -v -run '^TestExplore$$' ./reconnect/internal/session | $(figures)
driver: export SEEDS ?= 20000
driver:      ; @$(GOTEST) -race -v -run '^TestSessionSeeds$$' ./reconnect | $(figures)
rapid: export CHECKS ?= 50000
rapid:       ; @$(GOTEST) -run '^Test(Rapid.*|(Table|Budget)Model)$$' ./reconnect/internal/session ./datagram ./redial -rapid.checks=$(CHECKS) -rapid.nofailfile
nettest: COUNT ?= 50
nettest:     ; @$(GOTEST) -race -count=$(COUNT) -run '^Test(Conformance|ConnConformance|NetConn|Nettest)$$' ./transport/... ./redial
mutants:     ; @TOWLINE_MUTANTS=1 $(GOTEST) -v -run '^TestMutants$$' ./internal/mutants | $(figures)
conformance: ; @test -n "$(ADDR)" || { echo "which server? make conformance ADDR=tcp://host:port"; exit 2; }; $(GOTEST) -v -run '^TestConformance$$' ./internal/blackbox | $(figures)
hostile: export SEEDS ?= 100000
hostile:     ; @$(GOTEST) -v -run '^TestHostileSessions$$' ./reconnect | $(figures)
fuzz:        ; @.ci/fuzz $(FUZZTIME) '$(or $(ONLY),Fuzz.*)'
chaos:       ; @TOWLINE_CHAOS=1 go -C internal/chaos test -count=1 -timeout 12h -run '^(TestChaos|TestNothingIsLeft)$$'
soak:        ; @TOWLINE_SOAK=1 go -C internal/chaos test -count=1 -timeout 100h -run '^TestSoak$$'
model:       ; @TOWLINE_MODEL=1 $(GOTEST) -v -run '^TestModel$$' ./internal/model | $(figures)
