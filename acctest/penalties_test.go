// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/verify"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// byHand is the configuration that this test needs, without bake: the defaults of
// OpenSSH stay, and with them its penalties.
const byHand = `
apt-get install --yes libpam-google-authenticator >/dev/null
sed -i 's/^@include common-auth/auth required pam_google_authenticator.so secret=\/var\/lib\/google-authenticator\/${USER} user=root noskewadj/' /etc/pam.d/sshd
printf 'KbdInteractiveAuthentication yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\n' >/etc/ssh/sshd_config.d/00-lab.conf
mkdir -m 0700 /var/lib/google-authenticator
`

// A run leaves its caller with a server that still answers, where penalties are on;
// and whoever goes on failing is told why it does not.
func TestVerifyKeepsBelowThePenalties(t *testing.T) {
	t.Parallel()
	needLab(t)
	ctx := t.Context()
	root, err := rootfs.New(ctx, rootfs.Options{Recipe: rootfs.Debian13, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	if _, err := root.Shell(ctx, byHand); err != nil {
		t.Fatal(err)
	}
	key, err := login.NewKey(t.TempDir(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.AddUser(ctx, rootfs.User{Name: "alice", Keys: []string{key.Public}}); err != nil {
		t.Fatal(err)
	}
	e, err := otp.New(otp.Params{Issuer: "Lab", Account: "alice@lab", BackupCodes: 1}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	state := e.Secret + "\n\" RATE_LIMIT 3 30\n\" WINDOW_SIZE 3\n\" DISALLOW_REUSE\n\" TOTP_AUTH\n"
	if err := os.WriteFile(root.Path(pamStates+"/alice"), []byte(state), 0o400); err != nil {
		t.Fatal(err)
	}
	d, err := root.StartSSHD(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sshd:\n%s\nsyslog:\n%s", d.Log(), root.Syslog())
		}
	})
	private, err := os.ReadFile(key.File)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := root.HostKeys()
	if err != nil {
		t.Fatal(err)
	}
	o := verify.Options{
		Target:  verify.Target{User: "alice", Host: d.Host, Port: d.Port},
		Timeout: 30 * time.Second,
		Keys:    func(context.Context) ([]ssh.Signer, error) { return []ssh.Signer{signer}, nil },
		Code:    func(context.Context) (string, error) { return otp.Code(e.Secret, time.Now()) },
	}
	for _, line := range lines {
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		o.HostKeys = append(o.HostKeys, public.Type()+" "+ssh.FingerprintSHA256(public))
	}
	r, err := verify.Run(ctx, o)
	var table strings.Builder
	_ = r.Print(&table)
	t.Logf("%s, %v\n%s", r.Result, err, table.String())
	// Debian leaves SHA-1 and short tags among the MACs; all other rows are fine.
	for _, row := range r.Rows {
		if (row.Status == verify.StatusWrong) != (row.ID == "macs") {
			t.Errorf("%s: %s, %s", row.ID, row.Status, row.Seen)
		}
	}
	if err != nil || r.CodeAttempts != 2 {
		t.Errorf("%v, %d attempts", err, r.CodeAttempts)
	}

	// The account's owner is answered at the same address, at once.
	if !port.Greeted(ctx, d.Addr(), 10*time.Second) {
		t.Error("after a run the server does not answer")
	}

	// The penalties are on: without pause one run too many finds no answer.
	o.Keys = nil
	for i := 0; ; i++ {
		_, err := verify.Run(ctx, o)
		if errors.Is(err, verify.ErrUnreachable) && strings.Contains(err.Error(), "PerSourcePenalties") {
			t.Logf("after %d runs more: %v", i, err)
			break
		}
		if err != nil || i == 10 {
			t.Fatalf("run %d: %v", i, err)
		}
	}
}
