// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/base64"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// TestManyLoginKeys: a card is sealed to as many login keys as it can name, however
// many the user's file has. The file has a size that made the work quadratic once.
func TestManyLoginKeys(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nissuer: I\nrecipients_from: [authorized_keys]\n")
	m.layer("version: 1\n")
	var text strings.Builder
	for i := range 8000 {
		blob := []byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + strings.Repeat("k", 28) + "1234")
		binary.BigEndian.PutUint32(blob[len(blob)-4:], uint32(i))
		text.WriteString("ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + "\n")
	}
	m.put("/home/alice/.ssh/authorized_keys", text.String())
	if os.Geteuid() == 0 {
		for _, name := range []string{"", "/.ssh", "/.ssh/authorized_keys"} {
			if err := os.Chown(m.t.Root()+"/home/alice"+name, 1000, 1000); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		t.Skip("only root can give files away")
	}
	st := m.mustRun()
	if u := user(st, "alice"); !u.Enrolled {
		t.Errorf("%+v", u)
	}
}
