// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

func TestClean(t *testing.T) {
	m := newMachine(t)
	m.bake()
	clean := snapshot(t, m.Root(), false)
	// What an enrollment leaves, and two instances' layers.
	for _, name := range []string{
		target.PAMStateDir + "/alice",
		target.PAMStateDir + "/alice~Xy12Z",
		target.PAMStateDir + "/.totp-tmp-ABC",
		target.Staged + "/id1/envelope.age",
		target.Ready + "/id2/envelope.age",
		target.Receipts + "/id2.json",
		target.Envelopes + "/id2.age",
		target.Status,
		target.StateDir + "/identity.json",
		target.StateDir + "/set-aside/alice",
		target.Notice,
		target.NoticeConf,
	} {
		m.put(name, "left", 0o600)
	}
	for _, id := range []string{"i-1", "i-2"} {
		m.put(target.CloudInstances+"/"+id+"/totp-instance.yaml", "token: x", 0o600)
		m.put(target.CloudInstances+"/"+id+"/totp-vendor.yaml", "x", 0o600)
		m.put(target.CloudInstances+"/"+id+"/user-data.txt", "x", 0o600)
	}
	m.must(m.Symlink("/var/lib/cloud/instances/i-1", target.CloudInstance))
	if err := Clean(t.Context(), m.Target); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, d := range clean.diff(snapshot(t, m.Root(), false)) {
		if !strings.HasPrefix(d, "/var/lib/cloud") && d != "/run/totp-agent: appeared" {
			left = append(left, d)
		}
	}
	if left != nil {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	for _, id := range []string{"i-1", "i-2"} {
		es, err := m.ReadDir(target.CloudInstances + "/" + id)
		if err != nil || len(es) != 1 || es[0].Name() != "user-data.txt" {
			t.Errorf("%s: %v, %v", id, es, err)
		}
	}
	if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
		t.Errorf("after it: %v, %v", ids(findings), err)
	}

	before := snapshot(t, m.Root(), true)
	if err := Clean(t.Context(), m.Target); err != nil {
		t.Fatal(err)
	}
	if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
		t.Errorf("the second time changed:\n%s", strings.Join(d, "\n"))
	}
}

func TestCleanWhereNothingWasBaked(t *testing.T) {
	m, _ := targettest.New(t)
	if err := Clean(t.Context(), m); err != nil {
		t.Error(err)
	}
	if es, _ := m.ReadDir("/"); len(es) > 0 {
		t.Errorf("made %v", es)
	}
}

func TestCleanWaitsForNobody(t *testing.T) {
	m := newMachine(t)
	m.bake()
	m.put(target.PAMStateDir+"/alice", "x", 0o400)
	unlock, err := m.Lock(target.StateDir)
	m.must(err)
	defer unlock()
	if err := Clean(t.Context(), m.Target); !errors.Is(err, target.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if !m.Exists(target.PAMStateDir + "/alice") {
		t.Error("removed a state file under an enrollment's feet")
	}
}
