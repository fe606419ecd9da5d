// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/nspawn"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// withPanel returns an instance of an image without users, with a key that the
// provider's panel gives.
func withPanel(t *testing.T, img *image, key, userData string) *server {
	t.Helper()
	s := newServerOf(t, img, userData)
	if err := s.Insert(nspawn.Seed{InstanceID: "i-web1", Hostname: "web1", Keys: []string{key}, UserData: userData}); err != nil {
		t.Fatal(err)
	}
	s.start()
	return s
}

// document is what totpctl user-data writes for a user of the image, merged into a
// document of the owner's if there is one.
func document(t *testing.T, p *person, own string) string {
	t.Helper()
	spec := cloudinit.Spec{Users: []cloudinit.User{{Name: p.name, Recipients: []string{p.recipient}}}}
	out, err := spec.Document()
	if own != "" {
		out, err = spec.Merge("own", []byte(own))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// What package cloudinit does and says about users who are enrolled and cannot log in
// comes true: each row that it lets pass logs in, and each that it warns of or mends
// does not.
func TestUserDataLetsUsersIn(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		img := imageOf(t, r, forUserData)
		root, alice := img.people["root"], img.people["alice"]
		for _, tt := range []struct {
			name string
			user *person
			doc  string
			in   bool
		}{
			// The image's cloud.cfg says disable_root: true, as Debian's genericcloud does, and
			// the panel gives the key that root has.
			{"root", root, document(t, root, ""), true},
			{"root, without our line", root, strings.Replace(document(t, root, ""), "disable_root: false\n", "", 1), false},
			{"password that does not expire", alice, document(t, alice, "#cloud-config\nchpasswd: {expire: false, list: ['alice:another']}\n"), true},
			{"password that expires", alice, document(t, alice, "#cloud-config\nchpasswd: {list: ['alice:another']}\n"), false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				s := withPanel(t, img, tt.user.key.Public, tt.doc)
				s.enrolled()
				s.sh("cloud-init status --wait >/dev/null || true") // some modules fail in this lab
				c := s.cards()[tt.user.name]
				got, err := login.Enter(t.Context(), login.OpenSSH{Dir: s.dir}, s.ssh(c), s.account(tt.user.name, c))
				if err != nil {
					t.Fatal(err)
				}
				if (got.Outcome == login.In) != tt.in {
					t.Errorf("%v, want in: %v", got, tt.in)
				}
			})
		}
	})
}

// The way of README to a plain VPS: an image without the channel ssh-banner, and
// user-data that add it. The card is in the banner, and leads into the server.
func TestPlainVPS(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		img := imageOf(t, r, forUserData)
		alice := img.people["alice"]
		identity, recipient, err := seal.GenerateHybrid()
		if err != nil {
			t.Fatal(err)
		}
		spec := cloudinit.Spec{
			Users:    []cloudinit.User{{Name: "alice", Recipients: []string{recipient}, SSHKeys: []string{alice.key.Public}}},
			Channels: []cloudinit.Channel{{Type: "ssh-banner"}},
		}
		doc, err := spec.Document()
		if err != nil {
			t.Fatal(err)
		}
		s := newServerOf(t, img, string(doc))
		s.start()
		s.enrolled()
		ids, err := seal.ParseIdentities([]byte(identity+"\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, armored, found := strings.Cut(s.banner(), "-----BEGIN AGE ENCRYPTED FILE-----")
		armored, _, closed := strings.Cut(armored, "-----END AGE ENCRYPTED FILE-----")
		if !found || !closed {
			t.Fatal("no card in the banner")
		}
		text, err := seal.Open([]byte("-----BEGIN AGE ENCRYPTED FILE-----"+armored+"-----END AGE ENCRYPTED FILE-----\n"), ids...)
		if err != nil {
			t.Fatal(err)
		}
		c, err := card.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		s.enter(c, login.In)
	})
}

// enrolled fails the test if the enrollment of this boot did, with what the agent said.
func (s *server) enrolled() {
	s.t.Helper()
	if got := s.result("totp-agent.service"); got != "success" {
		s.t.Fatalf("totp-agent.service: %s\n%s", got, s.sh("systemctl status --full --no-pager totp-agent.service || true; journalctl --no-pager --unit totp-agent.service --lines 50"))
	}
}

// banner is what sshd shows before a login.
func (s *server) banner() string {
	s.t.Helper()
	var text string
	_, err := ssh.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())), &ssh.ClientConfig{
		User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		BannerCallback: func(b string) error { text += b; return nil },
	})
	if err == nil {
		s.t.Error("logged in without anything")
	}
	var refused *ssh.ServerAuthError
	if text == "" && !errors.As(err, &refused) {
		s.t.Log(err)
	}
	return text
}
