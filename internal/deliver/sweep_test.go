// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// A damaged envelope is never sent, stops no other, and is an error of one pass only.
func TestDamagedEnvelope(t *testing.T) {
	change := func(name string, do func([]byte) []byte) func(*machine) {
		return func(m *machine) {
			file := filepath.Join(m.tg.Root(), target.Ready, bobID, name)
			data, err := os.ReadFile(file)
			must(m.T, err)
			must(m.T, os.WriteFile(file, do(bytes.Clone(data)), 0o600))
		}
	}
	remove := func(name string) func(*machine) {
		return func(m *machine) { must(m.T, os.Remove(filepath.Join(m.tg.Root(), target.Ready, bobID, name))) }
	}
	cut := func(data []byte) []byte { return data[:len(data)-1] }
	empty := func([]byte) []byte { return nil }
	longer := func(data []byte) []byte { return append(data, 'x') }
	huge := func(data []byte) []byte { return append(data, make([]byte, 1<<20)...) }
	flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	replace := func(old, new string) func([]byte) []byte {
		return func(data []byte) []byte { return bytes.Replace(data, []byte(old), []byte(new), 1) }
	}
	kinds := map[string]func(*machine){
		"description of another envelope": change(metaFile, replace(bobID, carolID)),
		"user with a slash":               change(metaFile, replace(`"bob"`, `"../x"`)),
		"hash of an unknown file":         change(metaFile, replace(`"envelope.age"`, `"../../key"`)),
	}
	for _, name := range []string{metaFile, envelopeFile, compactFile} {
		kinds[name+" is a directory"] = func(m *machine) {
			remove(name)(m)
			must(m.T, os.Mkdir(filepath.Join(m.tg.Root(), target.Ready, bobID, name), 0o700))
		}
		kinds[name+" is missing"] = remove(name)
		kinds[name+" is empty"] = change(name, empty)
		kinds[name+" is huge"] = change(name, huge)
		kinds[name+" has another half"] = change(name, func(data []byte) []byte { return data[:len(data)/2] })
		if name != metaFile { // its JSON ends before the line does
			kinds[name+" is cut"] = change(name, cut)
			kinds[name+" is longer"] = change(name, longer)
			kinds[name+" has a wrong bit"] = change(name, flip)
		}
	}
	for name, damage := range kinds {
		for _, had := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, delivered before: %v", name, had), func(t *testing.T) {
				c := acked("a")
				m := newMachine(t, policy.RequireAny, c)
				must(t, m.box.Stage(meta(bobID, "bob"), sealed(500), sealed(50)))
				must(t, m.box.Promote(bobID))
				if had {
					m.run()
				}
				ready(t, m.box, aliceID, "alice")
				damage(m)
				c.got = nil
				s, err := Run(t.Context(), m.tg, &m.e, m.options())
				if errors.Is(err, errDamaged) == had || had && err != nil || s.Delivered != 1 || !slices.Equal(c.got, []string{aliceID}) {
					t.Errorf("%+v, %v, sent %q", s, err, c.got)
				}
				if m.tg.Exists(path.Join(target.Ready, bobID)) {
					t.Error("it is still there")
				}
				m.run()
			})
		}
	}
}

// An entry that cannot be read now may be whole, and is left as it is.
func TestUnreadableEnvelope(t *testing.T) {
	for _, name := range []string{metaFile, envelopeFile, compactFile} {
		c := acked("a")
		m := newMachine(t, policy.RequireAny, c)
		ready(t, m.box, aliceID, "alice")
		must(t, m.box.Stage(meta(bobID, "bob"), sealed(500), sealed(50)))
		must(t, m.box.Promote(bobID))
		file := filepath.Join(m.tg.Root(), target.Ready, bobID, name)
		must(t, os.Rename(file, file+"~"))
		must(t, os.Symlink(name, file)) // ELOOP, also for root
		if s, err := Run(t.Context(), m.tg, &m.e, m.options()); err == nil || errors.Is(err, errDamaged) || s.Delivered != 1 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		must(t, os.Rename(file+"~", file))
		if s := m.run(); s.Delivered != 2 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// Envelopes of versions that wrote no hashes are delivered.
func TestEnvelopeWithoutHash(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	targettest.Put(t, m.tg, metaPath(aliceID), `{"id":"`+aliceID+`","user":"alice","generation":1}`, 0o600)
	if s := m.run(); s.Delivered != 1 {
		t.Errorf("%+v", s)
	}
}

func metaPath(id string) string { return path.Join(target.Ready, id, metaFile) }

// Files that are not envelopes cost a line in the log.
func TestJunk(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	for _, dir := range []string{target.Ready, target.Staged, target.Receipts, target.Envelopes} {
		must(t, m.tg.Mkdir(dir, 0o700))
		for i := range 20000 {
			must(t, os.WriteFile(filepath.Join(m.tg.Root(), dir, fmt.Sprintf("core.%d", i)), nil, 0o600))
		}
	}
	began := time.Now()
	defer func() { t.Logf("the pass took %v", time.Since(began)) }()
	if s := m.run(); s.Delivered != 1 || s.Envelopes != 1 {
		t.Errorf("%+v", s)
	}
	if n := m.log.Len(); n > 1000 {
		t.Errorf("%d bytes in the log: %.300s", n, m.log.String())
	}
}

// What a pass that was killed has left goes with the next one, and nothing else does.
func TestSweep(t *testing.T) {
	const temp = ".totp-tmp-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	m := newMachine(t, policy.RequireAny, acked("a"))
	ready(t, m.box, aliceID, "alice")
	must(t, m.box.Stage(meta(carolID, "carol"), sealed(1), nil))
	put := func(dir, name string) string {
		targettest.Put(t, m.tg, path.Join(dir, name), "x", 0o600)
		return path.Join(dir, name)
	}
	litter := []string{
		put(target.Receipts, temp),
		put(target.Envelopes, temp),
		put(target.Envelopes, "bob."+bobID+".age"),
		put(target.Envelopes, "b.o-b_2."+bobID+".age"),
	}
	stays := []string{
		put(target.Envelopes, "alice."+aliceID+".age"),
		put(target.Envelopes, "carol."+carolID+".age"),
		put(target.Envelopes, "notes.age"),
		put(target.Envelopes, bobID+".age"),
		put(target.Envelopes, "bob."+bobID+".age.bak"),
		put(target.Receipts, bobID+".json"),
	}
	m.run()
	for _, name := range litter {
		if m.tg.Exists(name) {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range stays {
		if !m.tg.Exists(name) {
			t.Errorf("%s is gone", name)
		}
	}
}

// One pass removes so many cards, and the next one continues.
func TestSweepIsBounded(t *testing.T) {
	m := newMachine(t, policy.RequireAny, acked("a"))
	ready(t, m.box, aliceID, "alice")
	for i := range maxSwept + 10 {
		id := strings.Repeat("a", 22) + string([]byte{'a' + byte(i/26/26), 'a' + byte(i/26%26), 'a' + byte(i%26), 'a'})
		targettest.Put(t, m.tg, path.Join(target.Envelopes, "bob."+id+".age"), "x", 0o600)
	}
	for _, want := range []int{10, 0} {
		m.run()
		entries, err := m.tg.ReadDir(target.Envelopes)
		must(t, err)
		if len(entries) != want {
			t.Errorf("%d left, want %d", len(entries), want)
		}
	}
}

// On request each channel that has not taken an envelope is tried, and each offer is
// repeated, whatever the other channels have.
func TestAgain(t *testing.T) {
	no := errors.New("no")
	for _, require := range []string{policy.RequireAny, policy.RequireAll} {
		ok, failed := acked("ok"), acked("failed")
		shown, hidden := offered("shown"), offered("hidden")
		failed.err, hidden.err = no, no
		all := []*fakeChannel{ok, failed, shown, hidden}
		m := newMachine(t, require, all...)
		ready(t, m.box, aliceID, "alice")
		m.run()
		m.again = true
		failed.err, hidden.err = nil, nil
		m.clock = m.clock.Add(time.Second)
		m.run()
		for c, want := range map[*fakeChannel]int{ok: 1, failed: 2, shown: 2, hidden: 2} {
			if len(c.got) != want {
				t.Errorf("%s: channel %s was tried %d times, want %d", require, c.name, len(c.got), want)
			}
		}
	}
}
