// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const theCode = "123456"

// options are those of an owner with key, card and code.
func options(s *server, key ssh.Signer) Options {
	return Options{
		Target:    s.target,
		Timeout:   time.Minute, // a busy machine answers late
		HostKeys:  []string{s.entry},
		Keys:      func(context.Context) ([]ssh.Signer, error) { return []ssh.Signer{key}, nil },
		Code:      func(context.Context) (string, error) { return theCode, nil },
		WhyNoKey:  "no key",
		WhyNoCode: "no code", WhyNoWrong: "not asked for",
	}
}

func (r Report) status(id string) Status {
	i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.ID == id })
	return r.Rows[i].Status
}

// wrongRows are the IDs of what is not as expected.
func (r Report) wrongRows() []string {
	var ids []string
	for _, row := range r.Rows {
		if row.Status == StatusWrong {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

func show(t *testing.T, r Report) {
	t.Helper()
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %s\n%s", r.Result, r.Error, b.String())
	for _, row := range r.Rows {
		if row.Status != StatusOK && row.Status != StatusWrong && row.Why == "" {
			t.Errorf("%s was not tried, and it is not said why", row.ID)
		}
		if row.Status == StatusOK && row.Seen == "" {
			t.Errorf("%s is ok, and it is not said what was seen", row.ID)
		}
	}
	if strings.Contains(b.String(), theCode) {
		t.Error("the code is in the table")
	}
	text, err := json.Marshal(r)
	if err != nil || strings.Contains(string(text), theCode) {
		t.Errorf("the code is in the JSON, or there is none: %v", err)
	}
}

func TestAGoodServer(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	h := &house{key: key.PublicKey(), code: theCode}
	s := listen(t, h.serve)
	r, err := Run(t.Context(), options(s, key))
	show(t, r)
	if err != nil || r.Result != ResultOK || r.Count(StatusOK) != len(attempts)-1 {
		t.Errorf("%v, %s, %d rows ok", err, r.Result, r.Count(StatusOK))
	}
	if r.status(rowWrongCode) != StatusNotTried {
		t.Error("a wrong code was tried unasked")
	}
	if got := h.answered(); !slices.Equal(got, []string{theCode, theCode}) || r.CodeAttempts != 2 {
		t.Errorf("answers %q, counted %d", got, r.CodeAttempts)
	}
	if n := s.accepted.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	if r.HostKey == nil || r.HostKey.VerifiedBy != "card" || r.Server != "SSH-2.0-Go" || r.Address != s.target.Addr() {
		t.Errorf("host key %+v, server %q, address %q", r.HostKey, r.Server, r.Address)
	}
	if a := r.Algorithms; a == nil || !a.StrictKex || len(a.Kex) == 0 || a.Kex[0].Class != PostQuantum || len(a.Ciphers) == 0 || len(a.MACs) == 0 {
		t.Errorf("algorithms %+v", a)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	key := newKey(t)
	h := &house{key: key.PublicKey(), code: theCode}
	s := listenOn(t, l, h.serve)
	o := options(s, key)
	o.HostKeys, o.KnownHosts = nil, knownHosts(t, s, s.signer.PublicKey(), "")
	o.Target, err = ParseTarget(s.target.String())
	if err != nil || o.Target != s.target {
		t.Fatalf("%+v, %v", o.Target, err)
	}
	r, err := Run(t.Context(), o)
	show(t, r)
	if err != nil || r.Result != ResultOK || r.HostKey.VerifiedBy != "known_hosts" || r.status(rowSameCode) != StatusOK {
		t.Errorf("%v, %s", err, r.Result)
	}
}

func TestWithoutAnything(t *testing.T) {
	t.Parallel()
	h := &house{key: newKey(t).PublicKey()}
	s := listen(t, h.serve)
	r, err := Run(t.Context(), Options{Target: s.target, WhyNoKey: "no key"})
	show(t, r)
	if err != nil || r.Result != ResultOK || r.CodeAttempts != 0 || s.accepted.Load() != 1 {
		t.Errorf("%v, %s, %d attempts, %d connections", err, r.Result, r.CodeAttempts, s.accepted.Load())
	}
	for _, id := range []string{rowNothing, rowPassword, rowCodeAlone, rowUnknownKey} {
		if r.status(id) != StatusOK {
			t.Errorf("%s: %s", id, r.status(id))
		}
	}
	// Unverified is not good.
	if r.status(rowHostKey) != StatusNotTried || r.HostKey.VerifiedBy != "" {
		t.Errorf("host key: %s, %+v", r.status(rowHostKey), r.HostKey)
	}
}

func TestKeyWithoutCode(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	h := &house{key: key.PublicKey(), code: theCode}
	s := listen(t, h.serve)
	o := options(s, key)
	o.Code = nil
	r, err := Run(t.Context(), o)
	show(t, r)
	if err != nil || r.Result != ResultOK || r.CodeAttempts != 1 || len(h.answered()) != 0 {
		t.Errorf("%v, %s, %d attempts, answers %q", err, r.Result, r.CodeAttempts, h.answered())
	}
	if r.status(rowKeyAlone) != StatusOK || r.status(rowPrompt) != StatusOK || r.status(rowKeyCode) != StatusNotTried {
		t.Error("the rows of the key are not as they should be")
	}
}

// knownHosts has a line for a server.
func knownHosts(t *testing.T, s *server, key ssh.PublicKey, marker string) *KnownHosts {
	t.Helper()
	k, err := ReadKnownHosts(knownFile(t, marker+knownhosts.Line([]string{s.target.Addr()}, key)+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Neither key nor code goes to a server that nobody knows, or to another one.
func TestHostKeys(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	other := newKey(t).PublicKey()
	tests := []struct {
		name   string
		change func(*testing.T, *server, *Options)
		status Status
		by     string
	}{
		{"card", func(*testing.T, *server, *Options) {}, StatusOK, "card"},
		{"another on the card", func(_ *testing.T, _ *server, o *Options) {
			o.HostKeys = []string{"ssh-ed25519 " + ssh.FingerprintSHA256(other)}
		}, StatusWrong, ""},
		{"another type on the card", func(_ *testing.T, _ *server, o *Options) {
			o.HostKeys = []string{"ecdsa-sha2-nistp256 " + ssh.FingerprintSHA256(other)}
		}, StatusWrong, ""},
		{"known_hosts", func(t *testing.T, s *server, o *Options) {
			o.HostKeys, o.KnownHosts = nil, knownHosts(t, s, s.signer.PublicKey(), "")
		}, StatusOK, "known_hosts"},
		{"another in known_hosts", func(t *testing.T, s *server, o *Options) {
			o.HostKeys, o.KnownHosts = nil, knownHosts(t, s, other, "")
		}, StatusWrong, ""},
		{"revoked in known_hosts", func(t *testing.T, s *server, o *Options) {
			o.HostKeys, o.KnownHosts = nil, knownHosts(t, s, s.signer.PublicKey(), "@revoked ")
		}, StatusWrong, ""},
		{"a CA of another key in known_hosts", func(t *testing.T, s *server, o *Options) {
			o.HostKeys, o.KnownHosts = nil, knownHosts(t, s, other, "@cert-authority ")
		}, StatusNotTried, ""},
		{"unknown", func(_ *testing.T, _ *server, o *Options) { o.HostKeys = nil }, StatusNotTried, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := &house{key: key.PublicKey(), code: theCode}
			s := listen(t, h.serve)
			o := options(s, key)
			tt.change(t, s, &o)
			keys := o.Keys
			asked := false
			o.Keys = func(ctx context.Context) ([]ssh.Signer, error) { asked = true; return keys(ctx) }
			r, err := Run(t.Context(), o)
			show(t, r)
			if err != nil || r.status(rowHostKey) != tt.status {
				t.Errorf("%v, %s, want %s", err, r.status(rowHostKey), tt.status)
			}
			if tt.by == "" && (asked || len(h.answered()) > 0) {
				t.Errorf("key asked for: %v, codes sent %q", asked, h.answered())
			}
			if got := r.HostKey; got != nil && got.VerifiedBy != tt.by {
				t.Errorf("verified by %q, want %q", got.VerifiedBy, tt.by)
			}
			if (r.Result == ResultWrong) != (tt.status == StatusWrong) {
				t.Errorf("result %s", r.Result)
			}
		})
	}
}

// Each hole turns the rows red that it concerns, and no other.
func TestHoles(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	tests := []struct {
		name  string
		house *house
		wrong []string
		codes int // that were given away
	}{
		{"open to everybody", &house{change: func(_ *house, c *ssh.ServerConfig) { c.NoClientAuth = true }}, []string{rowNothing}, 0},
		{"key alone", &house{keyAlone: true}, []string{rowKeyAlone}, 0},
		{"any key, and a code", &house{anyKey: true}, []string{rowUnknownKey}, 2},
		{"any key alone", &house{anyKey: true, keyAlone: true}, []string{rowUnknownKey}, 0},
		{"every code", &house{anyCode: true}, []string{rowSameCode}, 2},
		{"a code works twice", &house{reuse: true}, []string{rowSameCode}, 2},
		{"wrong code", &house{code: "another"}, []string{rowKeyCode}, 1},
		{"another prompt", &house{prompt: "One-time password (OATH) for `alice': "}, []string{rowPrompt}, 0},
		{"a password prompt", &house{prompt: "Password: "}, []string{rowPrompt}, 0},
		{"two prompts", &house{prompts: 2}, []string{rowPrompt, rowKeyCode}, 1},
		{"limited", &house{limited: true}, []string{rowPrompt}, 0},
		{"password", &house{change: func(h *house, c *ssh.ServerConfig) {
			c.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
				h.tries = append(h.tries, "p")
				return nil, nil
			}
		}}, []string{rowNothing, rowPassword}, 2},
		{"code alone", &house{change: func(h *house, c *ssh.ServerConfig) { c.KeyboardInteractiveCallback = h.ask }}, []string{rowNothing, rowCodeAlone}, 2},
		{"another key", &house{key: newKey(t).PublicKey()}, []string{rowKeyAlone}, 0},
		{"another key, and code alone", &house{key: newKey(t).PublicKey(), change: func(h *house, c *ssh.ServerConfig) { c.KeyboardInteractiveCallback = h.ask }},
			[]string{rowNothing, rowCodeAlone, rowKeyAlone}, 0},
		{"key, then password", &house{change: func(h *house, c *ssh.ServerConfig) {
			c.PublicKeyCallback = func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
				if string(k.Marshal()) != string(h.key.Marshal()) {
					return nil, errRefused
				}
				return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}}
			}
		}}, []string{rowKeyAlone}, 0},
		{"weak algorithms too", &house{change: func(_ *house, c *ssh.ServerConfig) {
			c.Ciphers = []string{"aes128-ctr", "aes128-cbc"}
			c.MACs = []string{"hmac-sha1", "hmac-sha2-256"}
			c.KeyExchanges = []string{"curve25519-sha256", "diffie-hellman-group14-sha1"}
		}}, []string{rowKex, rowCiphers, rowMACs}, 2},
		{"two attempts on a connection", &house{maxTries: 2}, nil, 2},
	}
	seen := map[string]string{
		"key alone":          "in",
		"another key":        "out, the key is not taken",
		"key, then password": "out, wants password",
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := tt.house
			if h.key == nil {
				h.key = key.PublicKey()
			}
			if h.code == "" {
				h.code = theCode
			}
			s := listen(t, h.serve)
			r, err := Run(t.Context(), options(s, key))
			show(t, r)
			if err != nil || !slices.Equal(r.wrongRows(), tt.wrong) {
				t.Errorf("%v, wrong rows %q, want %q", err, r.wrongRows(), tt.wrong)
			}
			if got := h.answered(); len(got) != tt.codes {
				t.Errorf("the server was given %q, want %d answers", got, tt.codes)
			}
			if want, ok := seen[tt.name]; ok && !slices.ContainsFunc(r.Rows, func(row Row) bool { return row.ID == rowKeyAlone && row.Seen == want }) {
				t.Errorf("of the key it is not said: %s", want)
			}
			if (r.Result == ResultWrong) != (len(tt.wrong) > 0) || r.CodeAttempts > 2 || s.accepted.Load() > 3 {
				t.Errorf("%s, %d attempts, %d connections", r.Result, r.CodeAttempts, s.accepted.Load())
			}
		})
	}
}

// A server with weak algorithms only is looked at, and not given a key.
func TestNothingOverWeakAlgorithms(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for row, change := range map[string]func(*ssh.ServerConfig){
		rowKex:     func(c *ssh.ServerConfig) { c.KeyExchanges = []string{"diffie-hellman-group14-sha1"} },
		rowCiphers: func(c *ssh.ServerConfig) { c.Ciphers = []string{"3des-cbc"} },
		rowMACs: func(c *ssh.ServerConfig) {
			c.Ciphers, c.MACs = []string{"aes128-ctr"}, []string{"hmac-sha1"} // which x/crypto/ssh takes for good
		},
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			h := &house{key: key.PublicKey(), code: theCode, change: func(_ *house, c *ssh.ServerConfig) { change(c) }}
			r, err := Run(t.Context(), options(listen(t, h.serve), key))
			show(t, r)
			if !errors.Is(err, ErrAlgorithms) || r.Result != ResultWrong || len(h.answered()) > 0 || r.CodeAttempts > 0 {
				t.Errorf("%v, %s, answers %q", err, r.Result, h.answered())
			}
			if !slices.Equal(r.wrongRows(), []string{row}) || r.status(rowPassword) != StatusOK || r.status(rowKeyAlone) != StatusNotTried {
				t.Error("the server was not looked at, or given a key")
			}
		})
	}
}

// What gives no answer is neither good nor bad.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	const version = "SSH-2.0-Odd_1.0\r\n"
	tests := []struct {
		name  string
		serve func(*server, net.Conn)
		err   error
	}{
		{"closes", func(*server, net.Conn) {}, ErrUnreachable},
		{"hangs", hang, ErrUnreachable},
		{"hangs after its version", says(version, hang), ErrUnreachable},
		{"closes after its version", says(version, drained), ErrUnreachable},
		{"speaks HTTP", says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"+strings.Repeat("x", 300)+"\n", drained), ErrNotSSH},
		{"speaks SSH 1", says("SSH-1.5-Old\r\n", drained), ErrNotSSH},
		{"sends garbage", says(version+strings.Repeat("\xff", 100), drained), ErrNotSSH},
		{"talks without end", func(_ *server, c net.Conn) {
			for {
				if _, err := c.Write([]byte(strings.Repeat("Hello!\n", 1000))); err != nil {
					return
				}
			}
		}, ErrNotSSH},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := listen(t, tt.serve)
			o := options(s, newKey(t))
			if errors.Is(tt.err, ErrUnreachable) {
				o.Timeout = 700 * time.Millisecond
			}
			start := time.Now()
			r, err := Run(t.Context(), o)
			show(t, r)
			if !errors.Is(err, tt.err) || r.Result != ResultUnreachable || r.Error == "" {
				t.Errorf("%v, %s, want %v", err, r.Result, tt.err)
			}
			if r.Count(StatusNotTried) != len(attempts) || s.accepted.Load() > 1 {
				t.Errorf("%d rows not tried, %d connections", r.Count(StatusNotTried), s.accepted.Load())
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		r, err := Run(t.Context(), Options{Target: Target{User: "alice", Host: "127.0.0.1", Port: 1}})
		if !errors.Is(err, ErrUnreachable) || r.Result != ResultUnreachable || !strings.Contains(r.Error, "refused") {
			t.Errorf("%v, %s", err, r.Result)
		}
	})
}

// What a server says before it hangs up is in the error, quoted.
func TestPartingWords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		serve  func(*server, net.Conn)
		err    error
		says   string // in the error
		advice bool   // to wait
	}{
		"nothing":                 {func(*server, net.Conn) {}, ErrUnreachable, "", true},
		"a penalty":               {says("Not allowed at this time\r\n", drained), ErrUnreachable, `"Not allowed at this time"`, true},
		"too many connections":    {says("Exceeded MaxStartups\r\n", drained), ErrUnreachable, `"Exceeded MaxStartups"`, true},
		"a reason":                {says("\r\nYour address is blocked.\r\nCall 555.\r\n", drained), ErrUnreachable, `"Your address is blocked. Call 555."`, false},
		"without the end of line": {says("refused by tcpd", drained), ErrUnreachable, `"refused by tcpd"`, false},
		"control characters":      {says("\x1b[2Jhello\n", drained), ErrUnreachable, `"\x1b[2Jhello"`, false},
		"a lot":                   {says(strings.Repeat("blah blah\n", 1000), drained), ErrUnreachable, `"blah blah blah blah blah blah"`, false},
		"after its version":       {says("SSH-2.0-Odd\r\n", drained), ErrUnreachable, "", true},
		"another protocol":        {says("220 mail.example ESMTP\r\n"+strings.Repeat("x", 300)+"\n", drained), ErrNotSSH, `"220 mail.example ESMTP xxx`, false},
		"version 1":               {says("SSH-1.5-Old\r\n", drained), ErrNotSSH, `"SSH-1.5-Old"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := listen(t, tt.serve)
			_, err := Run(t.Context(), options(s, newKey(t)))
			_, greeted := Greet(t.Context(), s.target, time.Minute)
			for call, err := range map[string]error{"Run": err, "Greet": greeted} {
				if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 400 {
					t.Errorf("%s: %v; want %s", call, err, tt.says)
				}
				if err != nil && strings.Contains(err.Error(), "wait some minutes") != tt.advice {
					t.Errorf("%s: %v; the advice to wait: %t", call, err, !tt.advice)
				}
			}
		})
	}
	// x/crypto has no value for a disconnect message, only this text.
	h := &house{key: newKey(t).PublicKey(), maxTries: 1}
	r, err := Run(t.Context(), options(listen(t, h.serve), newKey(t)))
	if err != nil || !slices.ContainsFunc(r.Rows, func(row Row) bool {
		return strings.HasPrefix(row.Seen, "out, the server hung up and said ") && strings.Contains(row.Seen, "too many authentication failures")
	}) {
		t.Errorf("%+v, %v", r.Rows, err)
	}
	for text, want := range map[string]string{
		"ssh: disconnect, reason 2: \"Too many authentication failures\"":  `"Too many authentication failures"`,
		"ssh: handshake failed: ssh: disconnect, reason 11: \"bye\\r\\n\"": `"bye"`,
		"ssh: disconnect, reason 2: \"\"":                                  "",
		"ssh: disconnect, reason 2: \"" + strings.Repeat("a", 500) + "\"":  `"` + strings.Repeat("a", 200) + `"`,
		"ssh: disconnect, reason 2: \"cut":                                 "",
		"EOF":                                                              "",
	} {
		if got := parting(errors.New(text), hello{}); got != want {
			t.Errorf("%s: %s; want %s", text, got, want)
		}
	}
}

// A server that stops in the middle leaves what was seen before.
func TestHangsAtTheCode(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	over := make(chan struct{})
	h := &house{key: key.PublicKey(), change: func(h *house, c *ssh.ServerConfig) {
		c.PublicKeyCallback = func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if string(k.Marshal()) != string(h.key.Marshal()) {
				return nil, errRefused
			}
			return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{
				KeyboardInteractiveCallback: func(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
					<-over
					return nil, errRefused
				}}}
		}
	}}
	o := options(listen(t, h.serve), key)
	t.Cleanup(func() { close(over) })
	o.Timeout = 3 * time.Second // a busy machine has to come to the code
	r, err := Run(t.Context(), o)
	show(t, r)
	if !errors.Is(err, ErrUnreachable) || r.Result != ResultUnreachable || r.status(rowKeyAlone) != StatusOK || r.status(rowKeyCode) != StatusNotTried || r.CodeAttempts != 1 {
		t.Errorf("%v, %s, %d attempts", err, r.Result, r.CodeAttempts)
	}
}

// What no server in this process does: it asks by a method that it does not offer.
func TestAskedWithoutAnOffer(t *testing.T) {
	t.Parallel()
	p := &probe{run: &run{report: newReport(Target{})}, step: slices.IndexFunc(refusals, func(s refusal) bool { return s.row == rowCodeAlone })}
	p.asked = []string{"Password: "}
	if _, err := p.next(&ssh.ClientAuthContext{AllowedMethods: []string{publicKey}}); !errors.Is(err, errEnough) {
		t.Errorf("it goes on: %v", err)
	}
	if got := p.report.wrongRows(); !slices.Equal(got, []string{rowCodeAlone}) || !p.ended {
		t.Errorf("wrong rows %q", got)
	}
}

func TestShortHostKey(t *testing.T) {
	t.Parallel()
	for bits, want := range map[uint]Status{1024: StatusWrong, 2047: StatusWrong, 2048: StatusOK} {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		key, err := ssh.NewPublicKey(&rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537})
		if err != nil {
			t.Fatal(err)
		}
		r := &run{report: newReport(Target{}), trust: trust{card: []string{"ssh-rsa " + ssh.FingerprintSHA256(key)}}}
		if err := r.checkHostKey("", nil, key); err != nil || r.report.status(rowHostKey) != want {
			t.Errorf("%d bits: %v, %s, want %s", bits, err, r.report.status(rowHostKey), want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := listen(t, hang)
	time.AfterFunc(100*time.Millisecond, cancel)
	start := time.Now()
	r, err := Run(ctx, options(s, newKey(t)))
	if !errors.Is(err, context.Canceled) || r.Result != ResultFailed || time.Since(start) > 30*time.Second {
		t.Errorf("%v, %s after %v", err, r.Result, time.Since(start))
	}
}

func TestCallersErrors(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	mine := errors.New("mine")
	for name, change := range map[string]func(*Options){
		"keys": func(o *Options) { o.Keys = func(context.Context) ([]ssh.Signer, error) { return nil, mine } },
		"code": func(o *Options) { o.Code = func(context.Context) (string, error) { return "", mine } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{key: key.PublicKey(), code: theCode}
			o := options(listen(t, h.serve), key)
			change(&o)
			if r, err := Run(t.Context(), o); !errors.Is(err, mine) || r.Result != ResultFailed || r.CodeAttempts != 0 {
				t.Errorf("%v, %s", err, r.Result)
			}
		})
	}
}

// A wrong code waits, so that never more than two attempts are in half a minute.
func TestWrongCodeWaits(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, tt := range []struct {
		any  bool
		want Status
	}{{false, StatusOK}, {true, StatusWrong}} {
		h := &house{key: key.PublicKey(), code: theCode, anyCode: tt.any}
		o := options(listen(t, h.serve), key)
		o.Wrong = func(context.Context) (string, error) { return "654321", nil }
		said := ""
		o.Say = func(text string) { said = text }
		var waited time.Duration
		r, err := runWith(t.Context(), o, func(p *pace) {
			p.sleep = func(_ context.Context, d time.Duration) error { waited = d; return nil }
		})
		show(t, r)
		if err != nil || r.status(rowWrongCode) != tt.want || r.CodeAttempts != 3 {
			t.Errorf("%v, %s, %d attempts", err, r.status(rowWrongCode), r.CodeAttempts)
		}
		if waited < 25*time.Second || said == "" {
			t.Errorf("waited %v, said %q", waited, said)
		}
		if got := h.answered(); !slices.Equal(got, []string{theCode, theCode, "654321"}) {
			t.Errorf("answers %q", got)
		}
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	p := pace{now: func() time.Time { return now }}
	// With the least limit of the module, 3 in 30 s, one is always left.
	var at []time.Time
	for range 6 {
		now = now.Add(p.due())
		p.attempt()
		at = append(at, now)
		now = now.Add(time.Second)
	}
	for i := 2; i < len(at); i++ {
		if at[i].Sub(at[i-2]) <= 30*time.Second {
			t.Errorf("attempts %d to %d in %v", i-1, i+1, at[i].Sub(at[i-2]))
		}
	}
}
