// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// The other ends, working and faulty.
var ends = map[string]*end{
	policy.ChannelHTTP: {
		policy: ", url: \"https://" + deliver.ServerName + "/secretpath/{id}\", ca_file: " + deliver.CAFile,
		start:  webWorks,
		got: func(s *scene) [][]byte {
			return append([][]byte(nil), s.panel.Bodies()...)
		},
		half: func(n int) int { return 1500 + n/2 }, // after a handshake
	},
	policy.ChannelOpenStack: {
		start: func(s *scene) {
			if s.nova == nil {
				s.nova = deliver.NewNova(s)
			}
			s.nova.Before(nil)
			s.nova.After(nil)
			s.wire.Addr = s.nova.Addr()
		},
		got: func(s *scene) [][]byte {
			b, err := base64.StdEncoding.DecodeString(s.nova.Password())
			if err != nil {
				s.Error(err)
			}
			return [][]byte{b}
		},
		half:    func(int) int { return 600 }, // the header has 200
		compact: true,
	},
	policy.ChannelVirtio: {
		start: func(s *scene) {
			s.port()
			s.listen(func(h *host, c net.Conn) {
				if payload, ok := readFrame(c); ok {
					h.keep(payload)
					io.WriteString(c, frame.OK(payload))
				}
			})
		},
		got: func(s *scene) [][]byte {
			var all [][]byte
			for _, b := range s.host.all() {
				if sealed, err := seal.Dearmor(b); err == nil {
					all = append(all, sealed)
				}
			}
			return all
		},
		half: func(n int) int { return n / 2 },
	},
	policy.ChannelConsole: {
		start: func(s *scene) {
			s.listen(func(h *host, c net.Conn) {
				b, _ := io.ReadAll(c)
				h.keep(b)
			})
		},
		got: func(s *scene) [][]byte {
			// What was printed arrives after the pass.
			var log []byte
			for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
				log = bytes.Join(s.host.all(), nil)
				if bytes.Contains(log, []byte("-----END TOTP ENVELOPE "+s.id)) {
					break
				}
			}
			var all [][]byte
			for _, e := range console.Decode(log) {
				if e.Complete {
					all = append(all, e.Sealed)
				}
			}
			return all
		},
		half: func(n int) int { return n },
	},
	policy.ChannelFile: {
		start: func(*scene) {},
		got: func(s *scene) [][]byte {
			b, err := s.tg.ReadFile(path.Join(target.Envelopes, user+"."+s.id+".age"))
			if err != nil {
				return nil
			}
			sealed, err := seal.Dearmor(b)
			if err != nil {
				s.Error(err)
			}
			return [][]byte{sealed}
		},
	},
	policy.ChannelSSHBanner: {
		policy: ", recipients: any",
		start:  func(*scene) {},
		got: func(s *scene) [][]byte {
			b, err := s.tg.ReadFile(target.Banner)
			begin, end := bytes.Index(b, []byte("-----BEGIN AGE")), bytes.Index(b, []byte("-----END AGE"))
			if err != nil || begin < 0 || end < begin {
				return nil
			}
			sealed, err := seal.Dearmor(b[begin : end+len("-----END AGE ENCRYPTED FILE-----")])
			if err != nil {
				s.Error(err)
			}
			return [][]byte{sealed}
		},
	},
}

// The server of the channel http, and some of it of openstack.

func webWorks(s *scene) {
	if s.panel == nil {
		s.panel = deliver.NewPanelAt(s, s.tg)
	}
	s.panel.Restart("", nil)
	s.panel.Then(nil)
	s.wire.Addr = s.panel.Addr()
}

func webRefuses(s *scene) { s.wire.Addr = s.closedPort() }

func webHasName(name string) func(*scene) {
	return func(s *scene) {
		s.panel.Restart(name, nil)
		s.wire.Addr = s.panel.Addr()
	}
}

func webHasExpired(s *scene) {
	s.panel.Restart("", func(from, to *time.Time) { *from, *to = from.Add(-time.Hour), from.Add(-time.Minute) })
	s.wire.Addr = s.panel.Addr()
}

// webHasNewCertificate makes one that is valid since five minutes.
func webHasNewCertificate(s *scene) {
	s.panel.Restart("", func(from, _ *time.Time) { *from = time.Now().Add(-5 * time.Minute) })
	s.wire.Addr = s.panel.Addr()
}

func webHasOtherCA(s *scene) {
	other := deliver.NewPanelAt(s, nil)
	s.wire.Addr = other.Addr()
}

// answers makes the server of http, or the metadata service, do this in the place
// of what it does with a request that it has read.
func (s *scene) answers(do http.HandlerFunc) {
	if s.nova == nil {
		s.panel.Then(do)
		return
	}
	s.nova.Before(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			do(w, r)
		}
	})
}

// hasKept makes it do this when it has the envelope.
func (s *scene) hasKept(do http.HandlerFunc) {
	if s.nova == nil {
		s.panel.Then(do)
		return
	}
	s.nova.After(do)
}

// webAnswers makes the server say this. more is a header's value: Location for a
// redirect, else Retry-After.
func webAnswers(code int, more string) func(*scene) {
	return func(s *scene) {
		s.answers(func(w http.ResponseWriter, _ *http.Request) {
			switch {
			case more == "":
			case code < 400:
				w.Header().Set("Location", more)
			default:
				w.Header().Set("Retry-After", more)
			}
			w.WriteHeader(code)
		})
	}
}

func webNeverEnds(s *scene) {
	s.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(500)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	})
}

func webHangs(s *scene) {
	s.wire.Deadline = short
	s.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// webCuts ends the connection after so many quarters of the body, and answers
// nothing.
func webCuts(quarter int) func(*scene) {
	return func(s *scene) {
		cut := func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, r.ContentLength*int64(quarter)/4)
			hijack(w).Close()
		}
		if s.nova != nil {
			s.nova.Before(cut)
			return
		}
		s.panel.Before(cut)
	}
}

// webCutsAnswer ends it when the answer has begun.
func webCutsAnswer(s *scene) {
	s.hasKept(func(w http.ResponseWriter, _ *http.Request) {
		c := hijack(w)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		c.Close()
	})
}

func webBabbles(s *scene) {
	s.hasKept(func(w http.ResponseWriter, _ *http.Request) {
		c := hijack(w)
		io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1\r\n")
		c.Close()
	})
}

func webFillsDisk(s *scene) {
	s.fillDisk()
	s.emptyDisk()
	s.hasKept(func(http.ResponseWriter, *http.Request) { s.fill() })
}

func hijack(w http.ResponseWriter) net.Conn {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	return c
}

// The host of the channels virtio and console.

// port gives the machine a virtio port.
func (s *scene) port() {
	targettest.Put(s, s.tg, target.VirtioPorts+"/vport0p1/name", policy.DefaultPort+"\n", 0o444)
}

// readFrame reads one frame's payload.
func readFrame(c net.Conn) (payload []byte, ok bool) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, false
		}
		if fields := strings.Fields(line); len(fields) == 5 {
			n, err := strconv.Atoi(fields[4])
			if err != nil {
				return nil, false
			}
			payload = make([]byte, n)
			_, err = io.ReadFull(r, payload)
			return payload, err == nil
		}
	}
}

func hostAnswers(answer string) func(*scene) {
	return func(s *scene) {
		s.listen(func(_ *host, c net.Conn) {
			if _, ok := readFrame(c); ok {
				io.WriteString(c, answer)
				io.Copy(io.Discard, c)
			}
		})
	}
}

func hostNeverEnds(s *scene) {
	s.listen(func(_ *host, c net.Conn) {
		if _, ok := readFrame(c); !ok {
			return
		}
		for {
			if _, err := io.WriteString(c, strings.Repeat("x", 1024)); err != nil {
				return
			}
		}
	})
}

func hostHangs(s *scene) {
	s.wire.Deadline = settled
	s.listen(func(_ *host, c net.Conn) { io.Copy(io.Discard, c) })
}

func hostNeverReads(s *scene) {
	if s.wire.Deadline = short; s.typ == policy.ChannelVirtio {
		s.wire.Deadline = settled
	}
	over := make(chan struct{})
	s.listen(func(*host, net.Conn) { <-over })
	s.Cleanup(func() { close(over) })
}

// hostCloses goes away after so many quarters of an envelope.
func hostCloses(quarter int) func(*scene) {
	return func(s *scene) {
		s.listen(func(_ *host, c net.Conn) {
			// Armored, an envelope is a third longer; on the console, more than twice.
			io.CopyN(io.Discard, c, int64(len(s.sent)*quarter/4))
		})
	}
}

func hostCutsAnswer(s *scene) {
	s.listen(func(_ *host, c net.Conn) {
		if payload, ok := readFrame(c); ok {
			io.WriteString(c, frame.OK(payload)[:20])
		}
	})
}

func hostFillsDisk(s *scene) {
	s.fillDisk()
	s.emptyDisk()
	s.listen(func(_ *host, c net.Conn) {
		if s.typ == policy.ChannelConsole {
			c.Read(make([]byte, 1))
			s.fill()
			io.Copy(io.Discard, c)
			return
		}
		if payload, ok := readFrame(c); ok {
			s.fill()
			io.WriteString(c, frame.OK(payload))
		}
	})
}
