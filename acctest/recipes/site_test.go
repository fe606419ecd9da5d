// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package recipes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// A site is the end of the channel that receives: a server with a certificate of
// a private CA, and the way to it.
type site struct {
	*testing.T
	heading   string
	dir       string // of the server's files
	ca        *authority
	cert, key string // files of the server's certificate
	wire      *wire
	log       *lockedBuffer

	// What a recipe's start sets. fill has the pairs that make the page's policy
	// that of one machine, and files its further files; got reads what the server
	// has of it, nil if nothing.
	fill  func(*machine) []string
	files func(*machine) map[string]string
	got   func(*machine) []byte
}

func newSite(t *testing.T, heading string) *site {
	t.Helper()
	s := &site{T: t, heading: heading, dir: t.TempDir(), ca: newAuthority(t), log: new(lockedBuffer)}
	s.cert, s.key = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	cert, key := s.ca.issue(t, "server", net.IPv4(127, 0, 0, 1))
	s.write("cert.pem", cert, 0o600)
	s.write("key.pem", key, 0o600)
	s.write("ca.pem", s.ca.pem(), 0o600)
	s.wire = newWire(t)
	return s
}

// write makes a file of the server's.
func (s *site) write(name, text string, mode fs.FileMode) string {
	s.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		s.Fatal(err)
	}
	return file
}

// run starts the server's program, and waits until it listens at addr.
func (s *site) run(addr string, env []string, program string, args ...string) {
	s.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, s.log, s.log
	ended, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		select {
		case err := <-ended:
			s.Fatalf("%s: %v\n%s", filepath.Base(program), err, s.said())
		default:
		}
		if time.Now().After(end) {
			s.Fatalf("%s does not listen\n%s", filepath.Base(program), s.said())
		}
	}
	s.wire.to(addr)
}

// said is what the server has printed.
func (s *site) said() string { return s.log.String() }

// freeAddr is an address for a server.
func (s *site) freeAddr() string {
	s.Helper()
	n, err := port.Free()
	if err != nil {
		s.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n))
}

// A machine is a server with one user, alice, enrolled, and the page's policy.
type machine struct {
	*site
	name     string
	tg       *target.Target
	identity string
	id       string // of the envelope
}

// machine boots one.
func (s *site) machine(name string) *machine {
	s.Helper()
	identity, recipient, err := seal.GenerateX25519()
	if err != nil {
		s.Fatal(err)
	}
	tg, err := target.Open(s.TempDir())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { tg.Close() })
	m := &machine{site: s, name: name, tg: tg, identity: identity}
	files := map[string]string{
		target.Passwd:                         "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n",
		target.HostnameFile:                   name + "\n",
		target.MachineID:                      fmt.Sprintf("%x\n", []byte(name+"-0123456789a")),
		target.ImagePolicy:                    "version: 1\njitter: 0s\nchannels: [{type: file}]\nusers: [{name: alice, recipients: [" + recipient + "]}]\n",
		target.CloudInstance + "/totp-ca.pem": s.ca.pem(),
		target.InstancePolicy:                 filled(s.T, fence(s.T, s.heading, "yaml"), s.fill(m)...),
	}
	if s.files != nil {
		for name, text := range s.files(m) {
			files[name] = text
		}
	}
	for name, text := range files {
		targettest.Put(s, tg, name, text, 0o600)
	}
	if _, err := enroll.Run(s.Context(), tg, enroll.Options{Agent: "test"}); err != nil {
		s.Fatal(err)
	}
	ready, err := deliver.OpenOutbox(tg).Ready()
	if err != nil || len(ready) != 1 {
		s.Fatalf("ready %v, %v", ready, err)
	}
	m.id = ready[0].ID
	return m
}

// pass delivers, and returns how the attempt is recorded.
func (m *machine) pass() string {
	m.Helper()
	p, refused, err := enroll.LoadPolicy(m.tg)
	if err != nil || len(refused) != 0 {
		m.Fatalf("the policy is refused: %+v, %v", refused, err)
	}
	var log bytes.Buffer
	if _, err := deliver.Run(m.Context(), m.tg, p, deliver.Options{Again: true, Log: &log}); err != nil {
		m.Fatal(err)
	}
	for _, c := range p.Channels {
		if c.Type != policy.ChannelHTTP {
			continue
		}
		for _, secret := range []string{c.HMACKey, c.Headers["X-Vault-Token"], strings.TrimPrefix(c.URL, "https://"+m.wire.addr)} {
			if secret != "" && strings.Contains(log.String(), secret) {
				m.Errorf("a secret is in the log:\n%s", log.String())
			}
		}
	}
	return m.attempt().State
}

func (m *machine) attempt() deliver.Attempt {
	m.Helper()
	r, err := deliver.OpenOutbox(m.tg).Receipts(m.id)
	if err != nil {
		m.Fatal(err)
	}
	for name, a := range r.Channels {
		if strings.HasPrefix(name, "http:") {
			return a
		}
	}
	m.Fatalf("no attempt by http: %+v", r)
	return deliver.Attempt{}
}

func (m *machine) lastError() string { return m.attempt().Error }

func (m *machine) stored() []byte { return m.got(m) }

// opens opens what is stored as totpctl does.
func (m *machine) opens(envelope []byte) {
	m.Helper()
	ids, err := seal.ParseIdentities([]byte(m.identity), nil)
	if err != nil {
		m.Fatal(err)
	}
	text, err := seal.Open(envelope, ids...)
	if err != nil {
		m.Fatalf("%d bytes are stored: %v", len(envelope), err)
	}
	c, err := card.Parse(text)
	if err != nil || c.User != "alice" || c.ID != m.id || c.Hostname != m.name {
		m.Errorf("the card is %q of %q at %q, %v", c.ID, c.User, c.Hostname, err)
	}
}

// forget takes away all that the machine knows of its attempts.
func (m *machine) forget() {
	m.Helper()
	if err := os.RemoveAll(filepath.Join(m.tg.Root(), target.Receipts)); err != nil {
		m.Fatal(err)
	}
}

// reseal puts another envelope into the place of the one that is ready.
func (m *machine) reseal() []byte {
	m.Helper()
	_, recipient, err := seal.GenerateX25519()
	if err != nil {
		m.Fatal(err)
	}
	r, err := seal.ParseRecipient(recipient)
	if err != nil {
		m.Fatal(err)
	}
	sealed, err := seal.Seal(make([]byte, 4000), []seal.Recipient{r})
	if err != nil {
		m.Fatal(err)
	}
	box := deliver.OpenOutbox(m.tg)
	ready, err := box.Ready()
	if err != nil || len(ready) != 1 {
		m.Fatalf("ready: %v, %v", ready, err)
	}
	if err := errors.Join(box.Withdraw(m.id), box.Stage(ready[0], sealed, nil), box.Promote(m.id)); err != nil {
		m.Fatal(err)
	}
	return sealed
}

// readOr returns a file's content, nil if there is none.
func readOr(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b
}

// A wire leads from one address to another, byte for byte, and can be cut.
type wire struct {
	addr string

	mu    sync.Mutex
	dest  string
	until func() bool
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &wire{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(c)
		}
	}()
	return w
}

func (w *wire) to(addr string) {
	w.mu.Lock()
	w.dest = addr
	w.mu.Unlock()
}

// cut has connections end when until says so. Of what the other end answers to a
// request nothing arrives.
func (w *wire) cut(until func() bool) {
	w.mu.Lock()
	w.until = until
	w.mu.Unlock()
}

// handshake is more than a TLS client says before it sends its request, and less
// than it has said with an envelope.
const handshake = 5000

func (w *wire) serve(client net.Conn) {
	defer client.Close()
	w.mu.Lock()
	dest, until := w.dest, w.until
	w.mu.Unlock()
	server, err := net.Dial("tcp", dest)
	if err != nil {
		return
	}
	defer server.Close()
	if until == nil {
		go func() {
			io.Copy(server, client)
			server.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(client, server)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	up := &counter{}
	go func() {
		io.Copy(io.MultiWriter(server, up), client)
		cancel()
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return // the connection stays until what it brought is stored
			}
			if up.count() < handshake {
				client.Write(buf[:n])
			}
		}
	}()
	for end := time.Now().Add(20 * time.Second); ctx.Err() == nil && !until() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// counter counts what is written to it.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += len(p)
	return len(p), nil
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
