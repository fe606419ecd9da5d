// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/browser"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/scenario"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// testServer is the server that has nothing but SSH, and an owner who installs
// nothing but PuTTY: a panel that puts a login key on root and takes user-data, the
// banner, the page.
func testServer(t *testing.T, lab *scenario.Lab) {
	o := newOwner(t, lab)
	i := o.order("server")
	boot(t, i)
	c := o.fetch(i)
	sight, err := o.putty().Look(t.Context(), login.Server{Host: "127.0.0.1", Port: i.Machine.Port}, "root", o.root.Key)
	if err != nil {
		t.Fatal(err)
	}
	secret := o.openInPage(sight)
	if secret != c.Secret {
		t.Error("the page shows another card than totpctl fetch")
	}
	o.openWithTicket(sight.Text, c)

	// From here on the owner has the code of a phone that has scanned the page.
	server, err := i.Server(c)
	if err != nil {
		t.Fatal(err)
	}
	root := login.Account{User: "root", Key: o.root.Key, Codes: login.NewCodes(secret, nil)}
	// The look above has counted against the rate limit, and so does PuTTY that is
	// asked for a code and has none.
	counted := func(attempt func()) {
		done, err := root.Codes.Pace(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		attempt()
		done()
	}
	counted(func() {})
	var alone login.Result
	counted(func() {
		alone = o.putty().Login(t.Context(), server, login.Try{User: "root", Key: root.Key, Methods: []string{login.PublicKey}})
	})
	if alone.Outcome != login.Unasked || !alone.KeyTaken() {
		t.Errorf("key alone: %v", alone)
	}
	if r, err := login.Enter(t.Context(), o.putty(), server, root); err != nil || r.Outcome != login.In {
		t.Fatalf("key and code: %v, %v", r, err)
	}
	o.bannerGone(i)
	counted(func() { sight, err = o.putty().Look(t.Context(), server, "root", o.root.Key) })
	if err != nil || strings.Contains(sight.Text, "banner") || strings.Contains(sight.Text, "AGE ENCRYPTED FILE") {
		t.Errorf("after the login PuTTY shows %q, %v", sight.Text, err)
	}
	// What our own user-data say is no error to cloud-init, and degrades nothing.
	out, err := login.Go{}.Run(t.Context(), server, root, "timeout 240 cloud-init status --wait >/dev/null; cloud-init status --long; echo exit status $?; hostname")
	if err != nil || !strings.HasPrefix(out, "status: done\n") || !strings.HasSuffix(out, "\nexit status 0\nserver\n") {
		t.Errorf("cloud-init: %q, %v", out, err)
	}
}

// owner is somebody with a browser, PuTTY, and a login key that the panel knows.
type owner struct {
	t      *testing.T
	lab    *scenario.Lab
	dir    string
	page   *browser.Page
	root   *scenario.Person
	ticket string // file
}

// newOwner makes a key in the page, and keeps it as a file.
func newOwner(t *testing.T, lab *scenario.Lab) *owner {
	t.Helper()
	o := &owner{t: t, lab: lab, dir: t.TempDir()}
	page := filepath.Join(o.dir, "open-card.html")
	o.totpctl("page", page)
	o.page = browser.Start(t).Open(t, page)
	o.page.Click("#make")
	o.page.Until(`document.getElementById("recipient").value !== ""`)
	_, identity := o.page.Saved(func() { o.page.Click("#save-key") })
	_, recipient := o.page.Saved(func() { o.page.Click("#save-recipient") })
	o.root = &scenario.Person{Name: "root", Identity: o.write("totp-key.txt", string(identity)), Recipient: strings.TrimSpace(string(recipient))}
	var err error
	if o.root.Key, err = login.NewKey(o.dir, "panel_key"); err != nil {
		t.Fatal(err)
	}
	return o
}

// panel is what the panel says of its own accord: its customers log in as root.
const panel = `#cloud-config
# Written by the panel.
disable_root: false
users: []
ssh_authorized_keys:
  - %s
`

// order orders a server, with user-data into which totpctl has put the rest.
func (o *owner) order(name string) *scenario.Instance {
	o.t.Helper()
	own := o.write("panel.yaml", fmt.Sprintf(panel, o.root.Key.Public))
	o.ticket = filepath.Join(o.dir, "root.ticket")
	iso := filepath.Join(o.dir, "seed.iso")
	o.totpctl("user-data", "--user", "root", "--recipients-file", o.write("totp-public-key.txt", o.root.Recipient+"\n"),
		"--channel", "ssh-banner", "--merge", own, "--image-report", o.lab.BuildReport(),
		"--ticket", o.ticket, "--seed-iso", iso, "--hostname", name)
	i, err := o.lab.NewServer(o.t.Context(), name, iso, []*scenario.Person{o.root})
	if err != nil {
		o.t.Fatal(err)
	}
	return i
}

// fetch is for an owner who has totpctl, and waits until the card is there.
func (o *owner) fetch(i *scenario.Instance) card.Card {
	o.t.Helper()
	for start := time.Now(); ; time.Sleep(time.Second) {
		out, said, err := o.lab.Totpctl(o.t.Context(), "", "fetch", "--json", "-i", o.root.Identity, "--ticket", o.ticket, i.Machine.Addr())
		if err != nil && time.Since(start) < 3*time.Minute {
			continue
		}
		if err != nil {
			o.t.Fatal(err)
		}
		if !strings.Contains(said, "which is on the card") {
			o.t.Errorf("of the host key: %q", said)
		}
		return o.card(out, said, "is the first and contains the token")
	}
}

// openInPage opens the page anew, gives it the key's file and what PuTTY shows,
// and scans the QR code. It returns the secret that a phone then has.
func (o *owner) openInPage(sight login.Sight) string {
	o.t.Helper()
	o.page.Reload()
	o.page.Drop(o.root.Identity)
	o.page.Put("envelope", sight.Text)
	o.page.Until(`document.querySelector("#card svg") !== null || document.getElementById("problem").textContent !== ""`)
	if problem := o.page.Text(`document.getElementById("problem").textContent`); problem != "" {
		o.t.Fatalf("the page: %s", problem)
	}
	if text := o.page.Text(`document.getElementById("card").textContent`); sight.HostKey == "" || !strings.Contains(text, sight.HostKey) {
		o.t.Errorf("PuTTY has asked about the host key %q, which is not on the card", sight.HostKey)
	}
	scanned := o.page.Scan("#card svg", 0)
	u, err := url.Parse(scanned)
	if err != nil || u.Scheme != "otpauth" || !strings.Contains(u.Path, "root@server") {
		o.t.Fatal("the QR code is not that of root's card")
	}
	return u.Query().Get("secret")
}

// openWithTicket opens the same text with totpctl, which knows the card by now.
func (o *owner) openWithTicket(text string, want card.Card) {
	o.t.Helper()
	out, said, err := o.lab.Totpctl(o.t.Context(), text, "open", "--json", "-i", o.root.Identity, "--ticket", o.ticket)
	if err != nil {
		o.t.Fatal(err)
	}
	if c := o.card(out, said, "is the one that was accepted before"); c.ID != want.ID || c.Secret != want.Secret {
		o.t.Errorf("in PuTTY's window is the card %s, want %s", c.ID, want.ID)
	}
}

// card reads a card of which the ticket must have said this.
func (o *owner) card(out []byte, said, ticket string) card.Card {
	o.t.Helper()
	c, err := scenario.ReadCard(out)
	if err != nil {
		o.t.Fatal(err)
	}
	if !strings.Contains(said, ticket) {
		o.t.Errorf("of the ticket: %q", said)
	}
	return c
}

// bannerGone returns when the server shows no card any more.
func (o *owner) bannerGone(i *scenario.Instance) {
	o.t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < 2*time.Minute; time.Sleep(time.Second) {
		_, _, err = o.lab.Totpctl(o.t.Context(), "", "fetch", "--json", "-i", o.root.Identity, i.Machine.Addr())
		if err != nil && strings.Contains(err.Error(), "shows no banner") {
			return
		}
	}
	o.t.Errorf("two minutes after the login the banner is still there: %v", err)
}

func (o *owner) putty() login.PuTTY { return login.PuTTY{Dir: o.dir} }

func (o *owner) totpctl(args ...string) {
	o.t.Helper()
	if _, _, err := o.lab.Totpctl(o.t.Context(), "", args...); err != nil {
		o.t.Fatal(err)
	}
}

func (o *owner) write(name, text string) string {
	o.t.Helper()
	name = filepath.Join(o.dir, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return name
}
