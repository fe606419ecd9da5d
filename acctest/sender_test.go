// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// Where systemd does not run, root's command starts the process that speaks to the
// network, as nobody.
func TestSenderWithoutSystemd(t *testing.T) {
	t.Parallel()
	m := newMachineOf(t, rootfs.Debian12)
	var mu sync.Mutex
	var users []string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		users = append(users, m.senderUser())
		mu.Unlock()
	}))
	defer srv.Close()
	write(t, m.Path("/etc/panel.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	if err := os.Chmod(m.Path("/etc/panel.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice := m.img.people["alice"]
	write(t, m.Path("/etc/totp-agent/image.yaml"), fmt.Sprintf(
		"version: 1\njitter: 0s\nchannels: [{type: http, url: \"%s/{id}\", ca_file: /etc/panel.pem}]\nusers: [{name: alice, recipients: [%s]}]\n", srv.URL, alice.recipient))
	m.ok("enroll")
	if s := m.ok("deliver"); !strings.Contains(s.err, ": delivered") {
		t.Errorf("deliver: %s", s.err)
	}
	if len(users) != 1 || users[0] != "65534" {
		t.Errorf("sent by users %q", users)
	}
	if left := m.must("sh", "-c", "ps -e -o user=,args= | grep '[t]otp-agent send' || true"); left != "" {
		t.Errorf("still there: %s", left)
	}
}

// senderUser returns the uid of the machine's process that sends an envelope now.
func (m *machine) senderUser() string {
	const file = "/etc/panel.pem" // identifies the processes of this machine
	ours, err := os.Stat(m.Path(file))
	if err != nil {
		return err.Error()
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err.Error()
	}
	for _, line := range lines {
		argv, err := os.ReadFile(line)
		if err != nil || !strings.HasSuffix(string(argv), "totp-agent\x00send\x00") {
			continue
		}
		dir := filepath.Dir(line)
		theirs, err := os.Stat(dir + "/root" + file)
		if err != nil || !os.SameFile(ours, theirs) {
			continue
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			return err.Error()
		}
		_, rest, _ := strings.Cut(string(status), "\nUid:\t")
		uid, _, _ := strings.Cut(rest, "\t")
		return uid
	}
	return "none"
}
