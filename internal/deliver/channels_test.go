// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// realEnvelope returns a binary age file.
func realEnvelope(t testing.TB) []byte {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, id.Recipient())
	must(t, err)
	w.Write(make([]byte, 3000))
	must(t, w.Close())
	return b.Bytes()
}

// leastChannel has the fields that its type cannot do without.
func leastChannel(typ string) policy.Channel {
	c := policy.Channel{Type: typ}
	if typ == policy.ChannelHTTP {
		c.URL = "https://panel.example/{id}"
	}
	return c
}

func TestRegistry(t *testing.T) {
	if got := strings.Join(Types(), " "); got != "console file http openstack ssh-banner virtio" {
		t.Errorf("types %q", got)
	}
	for typ, d := range drivers {
		c := leastChannel(typ)
		must(t, d.Check(c))
		if ch := d.New(c, nil); ch.Acknowledged() != d.Acknowledged || !strings.HasPrefix(ch.Name(), typ) {
			t.Errorf("%s: name %q, acknowledged %v", typ, ch.Name(), ch.Acknowledged())
		}
	}
	whole := drivers[policy.ChannelFile]
	for name, d := range map[string]Driver{
		"twice":       whole,
		"no type":     {Deadline: whole.Deadline, Check: whole.Check, New: whole.New},
		"no deadline": {Type: "x", Check: whole.Check, New: whole.New},
		"no check":    {Type: "x", Deadline: whole.Deadline, New: whole.New},
		"no new":      {Type: "x", Deadline: whole.Deadline, Check: whole.Check},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			Register(d)
		}()
	}
}

func TestRoutes(t *testing.T) {
	tg, _ := targettest.New(t)
	rs, err := routes([]policy.Channel{
		{Type: policy.ChannelFile},
		{Type: "carrier-pigeon"},
		{Type: policy.ChannelVirtio},
		{Type: policy.ChannelVirtio, Port: "a\nb"},
		{Type: policy.ChannelVirtio, Port: policy.DefaultPort},
		{Type: policy.ChannelVirtio, Port: "org.example.0"},
		{Type: policy.ChannelConsole},
		{Type: policy.ChannelConsole, Device: "/dev/ttyS1"},
		{Type: policy.ChannelFile},
		{Type: policy.ChannelHTTP, URL: "https://Panel.example:443/a/{id}?secret"},
		{Type: policy.ChannelHTTP, URL: "https://panel.example/b/{id}"},
		{Type: policy.ChannelHTTP, URL: "https://panel.example/b/{id}"},
		{Type: policy.ChannelHTTP, URL: "https://panel.example:8443/{id}", User: "alice", Envelopes: policy.EnvelopesOne},
		{Type: policy.ChannelHTTP, URL: "http://panel.example/{id}"},
		{Type: policy.ChannelOpenStack, User: "alice"},
	}, tg)
	if !errors.Is(err, ErrType) || !errors.Is(err, errPortName) || !errors.Is(err, errURL) {
		t.Errorf("got %v", err)
	}
	var names []string
	for _, r := range rs {
		names = append(names, r.Name())
		if r.deadline <= 0 {
			t.Errorf("%s: no deadline", r.Name())
		}
	}
	if got := strings.Join(names, ", "); got != "file, virtio, virtio:org.example.0, console, console:ttyS1, http:panel.example, http:panel.example #2, http:panel.example:8443 for alice, openstack for alice" {
		t.Errorf("routes %q", got)
	}
	if last := rs[len(rs)-1]; !last.compact || rs[len(rs)-2].compact {
		t.Errorf("routes %+v", rs)
	}
	if last := rs[len(rs)-2]; !last.network || !last.one || last.user != "alice" || rs[0].network || rs[0].one || rs[0].user != "" {
		t.Errorf("routes %+v", rs)
	}
}

// A channel that cannot be used does not stop the others.
func TestRunUnknownType(t *testing.T) {
	m := newMachine(t, policy.RequireAny)
	ready(t, m.box, aliceID, "alice")
	m.e.Channels = []policy.Channel{{Type: "carrier-pigeon"}, {Type: policy.ChannelFile}}
	s, err := Run(t.Context(), m.tg, &m.e, Options{})
	if !errors.Is(err, ErrType) || s.Offered != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFile(t *testing.T) {
	tg, _ := targettest.New(t)
	c := drivers[policy.ChannelFile].New(policy.Channel{}, tg)
	i := item()
	i.Sealed = realEnvelope(t)
	must(t, c.Send(t.Context(), i))
	must(t, c.Send(t.Context(), i))
	name := path.Join(target.Envelopes, "alice."+aliceID+".age")
	for p, want := range map[string]fs.FileMode{target.StateDir: 0o700, target.Envelopes: 0o700, name: 0o600} {
		if fi, err := tg.Lstat(p); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", p, fi.Mode(), err)
		}
	}
	b, err := tg.ReadFile(name)
	must(t, err)
	if !bytes.HasPrefix(b, []byte("-----BEGIN AGE ENCRYPTED FILE-----\n")) {
		t.Errorf("not armored: %.50q", b)
	}
	got, err := seal.Dearmor(b)
	must(t, err)
	if !bytes.Equal(got, i.Sealed) {
		t.Error("another envelope")
	}
	if err := c.Send(t.Context(), Item{Meta: i.Meta, Sealed: []byte("the plain text")}); err == nil {
		t.Error("a plain text was written")
	}
}

// terminal is a console over a pipe.
func terminal(t *testing.T) (c *tty, other net.Conn) {
	mine, other := net.Pipe()
	t.Cleanup(func() { other.Close() })
	return &tty{open: func(name string, flag int) (device, error) {
		if name != "/dev/console" || flag != os.O_WRONLY {
			t.Errorf("opened %q, %#x", name, flag)
		}
		return mine, nil
	}}, other
}

func TestConsole(t *testing.T) {
	c, other := terminal(t)
	log := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		b.ReadFrom(other)
		log <- b.Bytes()
	}()
	i := item()
	must(t, send(t, c, time.Minute))
	found := console.Decode(<-log)
	if len(found) != 1 || !found[0].Complete || found[0].ID != aliceID || !bytes.Equal(found[0].Sealed, i.Sealed) {
		t.Errorf("found %+v", found)
	}
}

func TestConsoleFaults(t *testing.T) {
	t.Run("stopped", func(t *testing.T) {
		c, _ := terminal(t)
		if err := send(t, c, 100*time.Millisecond); !errors.Is(err, errNotTaken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("stopped in the middle", func(t *testing.T) {
		c, other := terminal(t)
		go other.Read(make([]byte, 100))
		if err := send(t, c, 100*time.Millisecond); !errors.Is(err, errNotTaken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		tg, _ := targettest.New(t)
		c := drivers[policy.ChannelConsole].New(policy.Channel{}, tg)
		if err := send(t, c, time.Minute); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no device behind it", func(t *testing.T) {
		c := &tty{open: func(string, int) (device, error) {
			return nil, &fs.PathError{Op: "open", Path: target.Console, Err: syscall.EIO}
		}}
		if err := send(t, c, time.Minute); !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		tg, _ := targettest.New(t)
		targettest.Put(t, tg, target.Console, "", 0o600)
		c := drivers[policy.ChannelConsole].New(policy.Channel{}, tg)
		if err := send(t, c, time.Minute); !errors.Is(err, errNoTerminal) {
			t.Errorf("got %v", err)
		}
	})
}

// The policy accepts the types that are registered here, no more and no less.
func TestPolicyTypes(t *testing.T) {
	if got := policy.ChannelTypes(); !slices.Equal(got, Types()) {
		t.Errorf("the policy accepts %q, registered are %q", got, Types())
	}
}

// Every channel that an image can name is described.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/delivery-channels.md")
	must(t, err)
	sections := map[string]string{}
	for section := range strings.SplitSeq(string(doc), "\n## ") {
		head, body, _ := strings.Cut(section, "\n")
		sections[strings.TrimSpace(head)] = body
	}
	for _, typ := range Types() {
		body, ok := sections["`"+typ+"`"]
		if !ok {
			t.Errorf("docs/delivery-channels.md has no section \"## `%s`\"", typ)
			continue
		}
		word := "offered"
		if drivers[typ].Acknowledged {
			word = "acknowledged"
		}
		for _, want := range []string{"type: " + typ, "**" + word + "**", "### Faults"} {
			if !strings.Contains(body, want) {
				t.Errorf("section %s lacks %q", typ, want)
			}
		}
	}
}

// The times that the page promises are those of the code.
func TestDocsTimes(t *testing.T) {
	doc, err := os.ReadFile("../../docs/delivery-channels.md")
	must(t, err)
	page := strings.Join(strings.Fields(string(doc)), " ") // wherever a line wraps
	for _, tt := range []struct {
		what string
		is   time.Duration
		want time.Duration
		said string
	}{
		{"http, the whole", drivers[policy.ChannelHTTP].Deadline, time.Minute, "its answer's header never ends | fails after a minute;"},
		{"http, the connection", dialer.Timeout, 15 * time.Second, "there is no route | the attempt fails within 15 seconds;"},
		{"virtio, the whole", drivers[policy.ChannelVirtio].Deadline, 20 * time.Second, "does not read or answer | fails after 20 seconds;"},
		{"virtio, nobody there", hostGrace, 2 * time.Second, "no process listens on the host | fails after two seconds;"},
		{"console", drivers[policy.ChannelConsole].Deadline, 2 * time.Minute, "the host does not read | fails after two minutes;"},
		{"openstack", drivers[policy.ChannelOpenStack].Deadline, 30 * time.Second, "or breaks off | fails within 30 seconds;"},
		{"ssh-banner", drivers[policy.ChannelSSHBanner].Deadline, 10 * time.Second, "writes the banner | the attempt waits up to ten seconds;"},
		{"the first pause", firstPause, 15 * time.Second, "is tried again, after 15 seconds at first,"},
		{"the longest pause", longestPause, time.Hour, "that double up to an hour,"},
		{"Retry-After", longestWish, 24 * time.Hour, "`Retry-After` is honoured, up to a day,"},
	} {
		if tt.is != tt.want || !strings.Contains(page, tt.said) {
			t.Errorf("%s: %v, want %v, and the page to say %q", tt.what, tt.is, tt.want, tt.said)
		}
	}
}
