// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

const (
	aliceID = "abcdefgh234567ijklmnopqrsu"
	bobID   = "zyxwvuts765432rqponmlkjihg"
	carolID = "cccccccccccccccccccccccccc"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// sealed stands for a sealed envelope.
func sealed(n int) []byte {
	return append([]byte("age-encryption.org/v1\n-> X25519 x\n"), bytes.Repeat([]byte{0xA5}, n)...)
}

func meta(id, user string) Meta {
	return Meta{ID: id, User: user, Generation: 1, InstanceID: "i-1", Hostname: "web-1", Created: epoch}
}

func newOutbox(t testing.TB) (*Outbox, *target.Target) {
	t.Helper()
	tg, _ := targettest.New(t)
	return OpenOutbox(tg), tg
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ready puts an envelope where Run looks.
func ready(t testing.TB, o *Outbox, id, user string) {
	t.Helper()
	must(t, o.Stage(meta(id, user), sealed(500), nil))
	must(t, o.Promote(id))
}

func ids(t *testing.T, list func() ([]Meta, error)) string {
	t.Helper()
	metas, err := list()
	must(t, err)
	var s []string
	for _, m := range metas {
		s = append(s, m.ID)
	}
	return strings.Join(s, " ")
}

func TestOutbox(t *testing.T) {
	o, tg := newOutbox(t)
	if got := ids(t, o.Staged) + ids(t, o.Ready); got != "" {
		t.Errorf("an outbox that is not there lists %q", got)
	}
	m := meta(aliceID, "alice")
	m.Generation, m.Supersedes = 2, bobID
	must(t, o.Stage(m, sealed(500), nil))
	staged, err := o.Staged()
	must(t, err)
	if len(staged) != 1 || staged[0] != m {
		t.Errorf("staged %+v, want %+v", staged, m)
	}
	if got := ids(t, o.Ready); got != "" {
		t.Errorf("ready before it was promoted: %q", got)
	}
	if _, err := o.Envelope(aliceID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a staged envelope can be had: %v", err)
	}

	must(t, o.Promote(aliceID))
	must(t, o.Promote(aliceID)) // again: no change
	if got := ids(t, o.Staged); got != "" {
		t.Errorf("still staged: %q", got)
	}
	if got := ids(t, o.Ready); got != aliceID {
		t.Errorf("ready %q", got)
	}
	b, err := o.Envelope(aliceID)
	must(t, err)
	if !bytes.Equal(b, sealed(500)) {
		t.Error("another envelope")
	}

	// What is on disk is for root alone.
	must(t, filepath.WalkDir(filepath.Join(tg.Root(), target.StateDir), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v", p, fi.Mode())
		}
		return err
	}))

	must(t, o.Withdraw(aliceID))
	must(t, o.Withdraw(aliceID))
	must(t, o.Stage(meta(bobID, "bob"), sealed(1), nil))
	must(t, o.Discard(bobID))
	must(t, o.Discard(bobID))
	if got := ids(t, o.Staged) + ids(t, o.Ready); got != "" {
		t.Errorf("removed and listed: %q", got)
	}
	if err := o.Promote(bobID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("promoted what is not there: %v", err)
	}
}

func TestOutboxOrder(t *testing.T) {
	o, _ := newOutbox(t)
	for i, id := range []string{carolID, aliceID, bobID} {
		m := meta(id, "alice")
		m.Created = epoch.Add(-time.Duration(i/2) * time.Hour)
		must(t, o.Stage(m, sealed(1), nil))
	}
	if got, want := ids(t, o.Staged), bobID+" "+aliceID+" "+carolID; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestOutboxNames(t *testing.T) {
	o, tg := newOutbox(t)
	for _, id := range []string{"", ".", "..", "../staged/" + aliceID, "/etc", strings.ToUpper(aliceID), aliceID + "\n", aliceID[1:], aliceID + "a", ".tmp-" + aliceID} {
		for name, f := range map[string]func() error{
			"Stage":      func() error { return o.Stage(meta(id, "alice"), sealed(1), nil) },
			"Promote":    func() error { return o.Promote(id) },
			"Discard":    func() error { return o.Discard(id) },
			"Withdraw":   func() error { return o.Withdraw(id) },
			"Envelope":   func() error { _, err := o.Envelope(id); return err },
			"HasReceipt": func() error { _, err := o.HasReceipt(id); return err },
			"Receipts":   func() error { _, err := o.Receipts(id); return err },
		} {
			if err := f(); !errors.Is(err, ErrID) {
				t.Errorf("%s(%q): %v", name, id, err)
			}
		}
	}
	for _, user := range []string{"", "..", "a/b", "A", "-a", "a b", strings.Repeat("a", 33)} {
		if err := o.Stage(meta(aliceID, user), sealed(1), nil); !errors.Is(err, ErrUser) {
			t.Errorf("user %q: %v", user, err)
		}
	}
	m := meta(aliceID, "alice")
	m.Supersedes = "../x"
	if err := o.Stage(m, sealed(1), nil); !errors.Is(err, ErrID) {
		t.Errorf("supersedes: %v", err)
	}
	if err := o.Stage(meta(aliceID, "alice"), nil, nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
	if err := o.Stage(meta(aliceID, "alice"), sealed(frame.MaxPayload), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
	if tg.Exists("/var") {
		t.Error("something was written")
	}
}

// What a crash or a damaged disk leaves.
func TestOutboxLeftovers(t *testing.T) {
	o, tg := newOutbox(t)
	ready(t, o, aliceID, "alice")
	must(t, o.Stage(meta(bobID, "bob"), sealed(1), nil))
	put := func(name, content string) { targettest.Put(t, tg, name, content, 0o600) }
	for _, dir := range []string{target.Staged, target.Ready} {
		put(path.Join(dir, tmpPrefix+carolID, metaFile), "{")
		put(path.Join(dir, carolID, metaFile), `{"id":"`+carolID+`","user":"carol"}`) // no envelope
		put(path.Join(dir, strings.Repeat("d", 26), envelopeFile), "x")               // no meta.json
		put(path.Join(dir, strings.Repeat("e", 26), metaFile), "{")
		put(path.Join(dir, strings.Repeat("e", 26), envelopeFile), "x")
		put(path.Join(dir, strings.Repeat("f", 26), metaFile), `{"id":"`+aliceID+`","user":"alice"}`) // another's
		put(path.Join(dir, strings.Repeat("f", 26), envelopeFile), "x")
		put(path.Join(dir, strings.Repeat("g", 26), metaFile), `{"id":"`+strings.Repeat("g", 26)+`","user":"../x"}`)
		put(path.Join(dir, strings.Repeat("g", 26), envelopeFile), "x")
		put(path.Join(dir, strings.Repeat("h", 26), metaFile), `{"id":"`+strings.Repeat("h", 26)+`","user":"h"}`)
		put(path.Join(dir, strings.Repeat("h", 26), envelopeFile), "")
		put(path.Join(dir, "a file"), "x")
	}
	if got := ids(t, o.Staged); got != bobID {
		t.Errorf("staged %q", got)
	}
	if got := ids(t, o.Ready); got != aliceID {
		t.Errorf("ready %q", got)
	}
	must(t, o.Sweep())
	for _, dir := range []string{target.Staged, target.Ready} {
		if tg.Exists(path.Join(dir, tmpPrefix+carolID)) {
			t.Errorf("%s: not swept", dir)
		}
	}
	// The first envelope of the next run sweeps as well.
	o = OpenOutbox(tg)
	put(path.Join(target.Staged, tmpPrefix+carolID, metaFile), "{")
	must(t, o.Stage(meta(strings.Repeat("b", 26), "bob"), sealed(1), nil))
	if tg.Exists(path.Join(target.Staged, tmpPrefix+carolID)) {
		t.Error("not swept by Stage")
	}
	// A damaged entry can be removed by its name.
	must(t, o.Withdraw(strings.Repeat("e", 26)))
	if tg.Exists(path.Join(target.Ready, strings.Repeat("e", 26))) {
		t.Error("damaged entry still there")
	}
}

// A stage that fails leaves nothing that is listed, and the next one works.
func TestStageFails(t *testing.T) {
	o, tg := newOutbox(t)
	must(t, o.Stage(meta(bobID, "bob"), sealed(1), nil))
	// A directory in the place of the envelope makes the last step fail.
	dir := filepath.Join(tg.Root(), target.Staged, aliceID)
	must(t, os.MkdirAll(filepath.Join(dir, "x"), 0o700))
	if err := o.Stage(meta(aliceID, "alice"), sealed(1), nil); err == nil {
		t.Fatal("no error")
	}
	if tg.Exists(path.Join(target.Staged, tmpPrefix+aliceID)) {
		t.Error("leftover")
	}
	if got := ids(t, o.Staged); got != bobID {
		t.Errorf("staged %q", got)
	}
	must(t, os.RemoveAll(dir))
	must(t, o.Stage(meta(aliceID, "alice"), sealed(1), nil))
}

// A state directory that is a link is refused: what it leads to is somebody
// else's.
func TestOutboxLink(t *testing.T) {
	o, tg := newOutbox(t)
	targettest.Put(t, tg, "/elsewhere/x", "", 0o600)
	targettest.Put(t, tg, "/var/lib/x", "", 0o600)
	must(t, os.Symlink("/elsewhere", filepath.Join(tg.Root(), target.StateDir)))
	if err := o.Stage(meta(aliceID, "alice"), sealed(1), nil); !errors.Is(err, target.ErrNotOurs) {
		t.Errorf("got %v", err)
	}
}

func TestReceipts(t *testing.T) {
	o, tg := newOutbox(t)
	r, err := o.Receipts(aliceID)
	if err != nil || r.ID != aliceID || len(r.Channels) != 0 {
		t.Errorf("none: %+v, %v", r, err)
	}
	has := func(want bool) {
		t.Helper()
		if got, err := o.HasReceipt(aliceID); got != want || err != nil {
			t.Errorf("HasReceipt %v, %v; want %v", got, err, want)
		}
	}
	has(false)
	r = Receipt{ID: aliceID, User: "alice", Channels: map[string]Attempt{
		"virtio": {State: Failed, Tries: 2, Last: epoch, Next: epoch.Add(time.Hour), Error: "no"},
	}}
	must(t, o.saveReceipt(r))
	has(false)
	r.Channels["console"] = Attempt{State: Offered, Tries: 1, Last: epoch}
	must(t, o.saveReceipt(r))
	has(true)
	got, err := o.Receipts(aliceID)
	must(t, err)
	if got.Channels["virtio"] != r.Channels["virtio"] || got.Channels["console"] != r.Channels["console"] || got.User != "alice" {
		t.Errorf("got %+v, want %+v", got, r)
	}

	for _, damage := range []string{"", "{", `{"id":"` + bobID + `","user":"alice"}`, `{"id":"` + aliceID + `","user":"/"}`} {
		targettest.Put(t, tg, receiptFile(aliceID), damage, 0o600)
		if _, err := o.Receipts(aliceID); !errors.Is(err, ErrReceipt) {
			t.Errorf("%q: %v", damage, err)
		}
		has(false)
	}
}

func BenchmarkStagePromote(b *testing.B) {
	o, _ := newOutbox(b)
	for b.Loop() {
		must(b, o.Stage(meta(aliceID, "alice"), sealed(5000), nil))
		must(b, o.Promote(aliceID))
		must(b, o.Withdraw(aliceID))
	}
}

func TestSettleFails(t *testing.T) {
	o, tt := newOutbox(t)
	must(t, o.Write(meta(aliceID, "alice"), sealed(1), nil))
	must(t, o.Write(meta(bobID, "bob"), sealed(1), nil))
	// The second one cannot be staged.
	must(t, tt.RemoveAll(path.Join(target.Staged, tmpPrefix+bobID)))
	if err := o.Settle(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v", err, fs.ErrNotExist)
	}
	if staged, ready, err := o.IDs(); err != nil || len(staged)+len(ready) != 0 {
		t.Errorf("left: %v, %v, %v", staged, ready, err)
	}
	must(t, o.Settle()) // nothing waits any more
}
