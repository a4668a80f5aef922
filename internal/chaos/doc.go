// Package chaos runs the real programs where networks really fail: echo-server and echo-client as processes in network
// namespaces of their own, with a router in a third one between them, while links go down, packets are lost, resets are
// forged, addresses change, and processes are stopped and killed. It guards D1 (in order, without a gap, each once), D2
// (when the failures stop, it goes on) and D3 (a loss is reported, and no duplicate is silent) of docs/delivery.md where
// simulation cannot: against the kernel's TCP, against QUIC over real UDP, and in real time. TestSoak, below the same
// roof because it is as long, guards the other half of D4 and D5: under faults that never end, memory, descriptors and
// goroutines stay where they are.
//
//	make chaos                                              all scenarios on tcp, tls and quic, 30 s each, three at a time
//	make chaos SEED=9 SECONDS=30 TRANSPORT=quic SCENARIO=flap,nat PARALLEL=2
//	make chaos FROM=5 SEEDS=3 SCENARIO=restart,many@tcp     a transport for one scenario alone
//	make soak MINUTES=30 TRANSPORT=tcp                      tcp, tls or quic
//
// The client streams numbered lines of many lengths, and the harness sees that each comes back once, in order and
// unchanged. It is echo-client, or, in the scenario many, one process with 500 sessions. A seed decides when and in which
// variant the faults of a scenario come; the kernel's timing is its own, so a seed repeats the faults and not each packet.
// A run counts only if at least 500 messages a second flowed before the first fault. "Recovery" is from the end of a fault
// (for those that only kill connections: from the kill) to the next message that is new; behind faults that let some
// traffic pass, to the first message that was sent after their end.
//
// A failure says what was lost, doubled, out of order or too late, with the last words of both programs, and the command
// that repeats it. "no recovery" is a breach of D2, "redelivered" without a restart of the server one of D3: a session
// was lost that ought to live. "it does not count" is no verdict on Towline: the machine was too busy.
//
// The namespaces need root and Linux; what tools are missing the run installs. Without these the layer is skipped, in one
// line that says why. All that a run makes carries its process id and is removed at its end, also after a panic or Ctrl-C;
// what a killed run left is removed by the next one.
package chaos
