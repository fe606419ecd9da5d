// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Login keys of every kind; their private halves were thrown away.
const (
	annaKey    = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMpVVjCrwLa4CYKeWpSLc8b6ZBR4Cy+ZV32Qv4vyCYmS anna@desk.example"
	fromKey    = `from="198.51.100.0/24,2001:db8::/32",no-agent-forwarding ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMpVVjCrwLa4CYKeWpSLc8b6ZBR4Cy+ZV32Qv4vyCYmS anna@desk.example`
	forcedKey  = `restrict,pty,command="/usr/bin/backup --to 'x y'" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMpVVjCrwLa4CYKeWpSLc8b6ZBR4Cy+ZV32Qv4vyCYmS backup`
	certKey    = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIMGw0W7Ie3Qc7NgZZoReVVz1zWDVqxwqvy6mxw+pMLXOAAAAIMpVVjCrwLa4CYKeWpSLc8b6ZBR4Cy+ZV32Qv4vyCYmSAAAAAAAAAAAAAAABAAAABGFubmEAAAAIAAAABGFubmEAAAAAaw3X/wAAAABs7bsrAAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgSQ4sqLrZn6hl7taK5/1D7jkqAZJYkwFm3Rk+GNtX59sAAABTAAAAC3NzaC1lZDI1NTE5AAAAQLp92FcXfuidW6Lyse2nBidVl8wXU3inqQRLDJTZBBl6bIFQhNbNn2elsLxpDTW/N/aMleC+Cr/p/9BQaEWg2wo= anna@desk.example"
	rsa1024Key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCltWYfm1oS83vrJud3IL6jGfUwmR/O7bL+M2NF2WoTKGFRqbQ0r43m3ufWCA7xsZJ6xc1wSEIFKySuY8YQGGQ6oAZOBkBEL37Byqv04JaYV1RrJITrPAIuKoOoboFXty8VJm0uKGoaEAw3O3hsX3TH3dmADN66JMFnqcfjAulrzQ== old putty key"
	rsa2048Key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCXXbY0Tmj2zkcbCSSQ+vPUESsomgRR9K16YfD/qgd/4W3QGWlXx5bHYbx3+t3tvjRVqTY+V+KAVyAj5uveak0qZnMu9Xzl4N+LwC1uc2tN3olK7y7V0Rby1aeutUGMyY9YBgtMAm2uUdCdNZ/MHUTPpgQkOVeP1xGFdkfEWDwAIF/mlJU8aHJBf07SPjDbz1j0nHWq9rX+QAlpBlgdMZV2PpMN/X9SsZYpRASn83vWZ3ceAEVWv0kBxzoGBMtjklj1V4mAVgjy9zxfg7AvFJHc5nvNr1LxkCzb7OFJxXnK+ldJ5nMP6dqy6vg56p+E1Ydb7Y35teIyY7f/ExizFqbF rsa 2048"
	rsa3072Key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDLE1c72M2FRs13x1UoSmw2doNcdnk7wJbrbAVXLGOGr08Lt6JkrDKo1A7CmHm9pJT1WIa1+DukrQ6LUqgFCrhX5h6/IhpiG+hdvUctTEJxpADNsN2CYk8Jzuw4USJagY4NxCDBi7wFeSh02McKnxMlnwK0yDeWalcrqFgKBFGzLJT5pwIZN6N6GBLS1ouGL52Pf5WUYqru5GFEOceITI2PqA7q7VlkxgIYaq4/BX6M/eeeH/DO+JY0viJL9Yfp8MAbvGlYLP/zhMlA4uXCIKbZzp6i2w5vLVMnwtTfDGiNbhKyBcCULH/qMfwv0zWrbFfNIQSTAyC1YcQaxP3DbDlliMcCB68WfWe9+nCaQk4rIeLY/qSp+ihWcrm2UzrrNUCcezEKqM+cyEQ6uiyFeQQcjn3O1YCGxXMIPTo5avA4ndWVKxX9Y4QZ/MFBDYHdymqaiOMrRCSHkf9JOwyUeI2mTit4suBVSc7BwrDCpCUWsUKrwg8AoUlIpyiCCTzZlec= anna"
	dsaKey     = "ssh-dss AAAAB3NzaC1kc3MAAACBAMUBX7/nxqMvFevrsAua/lD8boNzN8qHE4EjSicc3+PRqh6a8EB4hwNA+QHFJ6g+WowONu+aMtXW1FH7JDdhwrYOPkMXTcNnMSa5KTAU4JkUF0ZnByHdGqn7/BtmxMppu9NlIUaGKYhIrqiQ0EdbG9/YZaZraG+SEhANGg/yTY/dAAAAFQDqpdCL+aShof4BQrY667tVxAzV6QAAAIAt42jiA0gTyzcL/bxyfe4aNzG/f5D1DoW0YoQOTXCSM0QjO1IPQ6/cp7qeHz6visysKI+vmJKVTxCuPLj8RrL6N3TAgTgxwIGKcnYakmUx++LwyXOC3ZPyz5TskpX8AtkJR8OmpemDacmMY9iCEZs2+kRqh57kf+04Bvc8791wXwAAAIBSmFNaMAHhxG/2OZDvg+HV0edUcOWQwmrBdDi8yn29Vyn0fg9ohDbt9xhvH4Lfjqz5gCy388WAD4uVzfdmN+niK8ZC6X6TzwwnPnHu+LT9H6Po0sdhhUhVK31ZSdTOb5Ef+hgHAD12pJcS4jpXJyGTtrJNwKrD0b/acfqoL9kyaQ== test"
	ecdsaKey   = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFfgbB1TJtTZBYDZBkSMQcTVumkOw6Sgm0QbyNS8FM94jfwiT2LXkLIfnCNtHaN10sgzCXpTXd/M+iXIpy0y1cM= anna@ecdsa"
)

func anna(keys ...string) Spec {
	return Spec{Users: []User{{Name: "anna", Recipients: []string{aliceAge}, SSHKeys: keys}}}
}

func enrolled(name string) Spec {
	return Spec{Users: []User{{Name: name, Recipients: []string{aliceAge}}}}
}

func imageOf(t *testing.T, openSSH, policy string) *Image {
	t.Helper()
	data, err := json.Marshal(map[string]any{"version": 1, "openssh": openSSH, "policy": "version: 1\n" + policy})
	if err != nil {
		t.Fatal(err)
	}
	image, err := ParseReport("report.json", data)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func checkProblems(t *testing.T, what string, got Errors, want []problem) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = got[i].Path == want[i].path && errors.Is(got[i].Rule, want[i].rule)
	}
	if !ok {
		t.Errorf("%s:\n%v\nwant %v", what, got, want)
	}
	for _, e := range got {
		if e.Fix == "" || strings.Contains(e.Error(), "\n") {
			t.Errorf("%s: %q has no remedy, or is more than a line", what, e)
		}
	}
}

// TestLoginKeys: what sshd does not accept as a login key is refused, whatever the
// image.
func TestLoginKeys(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		rule      error // nil: accepted
	}{
		{"ed25519", annaKey, nil},
		{"RSA, 2048 bits", rsa2048Key, nil},
		{"ECDSA", ecdsaKey, nil},
		{"with an address", fromKey, nil},
		{"with a forced command", forcedKey, nil}, // a warning, see TestReview
		{"of a CA", "cert-authority,principals=\"anna\" " + annaKey, nil},
		{"options in capitals", "No-PTY,X11-Forwarding " + annaKey, nil},
		{"certificate", certKey, ErrCertificate},
		{"RSA, 1024 bits", rsa1024Key, ErrWeakKey},
		{"RSA, 1024 bits, with options", "no-pty " + rsa1024Key, ErrWeakKey},
		{"unknown option", "no-login " + annaKey, ErrKeyOption},
		{"misspelt option", `comand="/bin/true" ` + annaKey, ErrKeyOption},
		{"DSA", dsaKey, ErrKeyKind},
		{"DSA, cut short", "ssh-dss AAAAB3NzaC1kc3MAAACBA", ErrNotSSHKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := anna(tt.key).Document()
			var want []problem
			if tt.rule != nil {
				want = []problem{{"users[0].ssh_keys[0]", tt.rule}}
			}
			var errs Errors
			errors.As(err, &errs)
			checkProblems(t, tt.name, errs, want)
			if err := CheckSSHKey(tt.key); !errors.Is(err, tt.rule) || (err == nil) != (tt.rule == nil) {
				t.Errorf("CheckSSHKey: %v; want %v", err, tt.rule)
			}
			if !HasSSHKeyType(tt.key) {
				t.Error("the line is taken for a file name")
			}
		})
	}
}

// TestFileNames: names of files that contain the type of a key are not keys.
func TestFileNames(t *testing.T) {
	for _, name := range []string{"", "alice.pub", "ssh-ed25519", "ssh-rsa.pub", "my ssh-keys/alice.pub", "/keys/ssh-ed25519 alice.pub.txt/ssh-ed25519", "ssh-ed25519.pub of alice", "-", "./ssh-rsa alice"} {
		if HasSSHKeyType(name) {
			t.Errorf("%q is taken for a key", name)
		}
	}
}

// TestImageRefusesOneOfTwoKeys: a key that the image refuses beside one that it
// accepts locks no user out.
func TestImageRefusesOneOfTwoKeys(t *testing.T) {
	h := Host{Image: imageOf(t, "9.2", "sshd: {algorithms: strict}\n")}
	warnings, errs := anna(ecdsaKey, annaKey, rsa2048Key).Review(h, "", nil)
	checkProblems(t, "errors", errs, nil)
	checkProblems(t, "warnings", warnings, []problem{{"users[0].ssh_keys[0]", ErrImageRefusesKey}, {"users[0].ssh_keys[2]", ErrImageRefusesKey}})
	_, errs = anna(ecdsaKey, rsa2048Key).Review(h, "", nil)
	checkProblems(t, "errors", errs, []problem{{"users[0].ssh_keys[0]", ErrImageRefusesKey}, {"users[0].ssh_keys[1]", ErrImageRefusesKey}})
}

// TestImageRefusesKeys: a key that sshd of the image refuses is refused with its
// report.
func TestImageRefusesKeys(t *testing.T) {
	for _, tt := range []struct {
		name, openSSH, policy, key string
		refused                    bool
	}{
		{"ed25519", "9.2", "sshd: {algorithms: strict}\n", annaKey, false},
		{"RSA 3072", "9.2", "sshd: {algorithms: strict}\n", rsa3072Key, false},
		{"RSA 2048", "9.2", "sshd: {algorithms: strict}\n", rsa2048Key, true},
		{"RSA 2048, unknown version", "", "sshd: {algorithms: strict}\n", rsa2048Key, true},
		{"RSA 2048, sshd without RequiredRSASize", "8.4", "sshd: {algorithms: strict}\n", rsa2048Key, false},
		{"ECDSA", "9.2", "sshd: {algorithms: strict}\n", ecdsaKey, true},
		{"ECDSA, sshd 8.4", "8.4", "sshd: {algorithms: strict}\n", ecdsaKey, true},
		{"CA of ECDSA", "9.2", "sshd: {algorithms: strict}\n", "cert-authority " + ecdsaKey, false},
		{"RSA 2048, compatible", "9.2", "sshd: {algorithms: compatible}\n", rsa2048Key, false},
		{"ECDSA, compatible", "9.2", "", ecdsaKey, false},
		{"ECDSA, distro", "9.2", "sshd: {algorithms: distro}\n", ecdsaKey, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Host{Image: imageOf(t, tt.openSSH, tt.policy)}
			var want, inDoc []problem
			if tt.refused {
				want = []problem{{"users[0].ssh_keys[0]", ErrImageRefusesKey}}
				inDoc = []problem{{"users[1].ssh_authorized_keys[0]", ErrNoUsableKey}}
			}
			warnings, errs := anna(tt.key).Review(h, "", nil)
			checkProblems(t, "errors", errs, want)
			checkProblems(t, "warnings", warnings, nil)
			// The same key in the owner's document.
			doc := "#cloud-config\nusers:\n  - default\n  - name: anna\n    ssh_authorized_keys:\n      - " + tt.key + "\n"
			_, errs = anna().Review(h, "web.yaml", []byte(doc))
			checkProblems(t, "errors of a document", errs, inDoc)
		})
	}
}

// TestReview lists what in a document keeps an enrolled user from logging in, and
// what is harmless. Errors are those of Merge.
func TestReview(t *testing.T) {
	const head = "#cloud-config\n"
	key := "    ssh_authorized_keys: ['" + annaKey + "']\n"
	list := head + "users:\n  - default\n  - name: anna\n"
	for _, tt := range []struct {
		name     string
		spec     Spec
		doc      string
		errs     []problem
		warnings []problem
	}{
		// Root's keys.
		{"disable_root", enrolled("root"), head + "disable_root: true\nssh_pwauth: false\npackages: [nginx]\n", []problem{{"disable_root", ErrDisableRoot}}, nil},
		{"disable_root, in words", enrolled("root"), head + "disable_root: 'Yes'\n", []problem{{"disable_root", ErrDisableRoot}}, nil},
		{"disable_root, by a merge key", enrolled("root"), head + "a: &a {disable_root: 1}\n<<: *a\n", []problem{{"disable_root", ErrDisableRoot}}, nil},
		{"disable_root in a template", enrolled("root"), "## template: jinja\n" + head + "disable_root: true\n", []problem{{"disable_root", ErrDisableRoot}}, nil},
		{"disable_root in gzip", enrolled("root"), gz(head + "disable_root: true\n"), []problem{{"disable_root", ErrDisableRoot}}, nil},
		{"disable_root in an archive", enrolled("root"), "#cloud-config-archive\n- |\n  #cloud-config\n  disable_root: true\n", []problem{{"archive[0]: disable_root", ErrDisableRoot}}, nil},
		{"disable_root off", enrolled("root"), head + "disable_root: false\n", nil, nil},
		{"disable_root, root is not enrolled", enrolled("debian"), head + "disable_root: true\n", nil, nil},
		// Users who are not made, or without keys.
		{"a list without the image's user", enrolled("debian"), head + "users:\n  - name: mara\n", nil, []problem{{"users", ErrNotListed}}},
		{"an empty list", enrolled("debian"), head + "users: []\n", nil, []problem{{"users", ErrNotListed}}},
		{"a list in an archive", enrolled("debian"), "#cloud-config-archive\n- |\n  #cloud-config\n  users: [mara]\n", nil, []problem{{"archive[0]: users", ErrNotListed}}},
		{"a list with the image's user", enrolled("debian"), head + "users: [default, mara]\n", nil, nil},
		{"the image's user by the old key", enrolled("debian"), head + "user: debian\nusers: [mara]\n", nil, nil},
		{"no list", enrolled("debian"), head + "packages: [git]\n", nil, nil},
		{"a list without root", enrolled("root"), head + "users: [mara]\n", nil, nil},
		{"a user of ours", anna(annaKey), head + "users: [mara]\n", nil, nil},
		{"a user without keys", anna(), head + "users:\n  - name: anna\n    shell: /bin/bash\n", nil, []problem{{"users[0]", ErrNoKey}}},
		{"a user without keys, by name", anna(), head + "users: [default, anna]\n", nil, []problem{{"users[1]", ErrNoKey}}},
		{"a user with an empty list of keys", anna(), list + "    ssh_authorized_keys: []\n", nil, []problem{{"users[1]", ErrNoKey}}},
		{"a user with keys", anna(), list + key, nil, nil},
		{"a user with one key", anna(), list + "    ssh-authorized-keys: " + annaKey + "\n", nil, nil},
		{"keys from the network only", anna(), list + "    ssh_import_id: [gh:anna]\n", nil, []problem{{"users[1].ssh_import_id", ErrLateKeys}}},
		{"keys from the network too", anna(), list + key + "    ssh_import_id: [gh:anna]\n", nil, nil},
		{"the provider's keys kept off", enrolled("debian"), head + "allow_public_ssh_keys: false\n", nil, []problem{{"allow_public_ssh_keys", ErrPanelKeys}}},
		{"the provider's keys kept off from root", enrolled("root"), head + "allow_public_ssh_keys: no\n", nil, []problem{{"allow_public_ssh_keys", ErrPanelKeys}}},
		{"the provider's keys kept off, a user with keys", anna(), list + key + "allow_public_ssh_keys: false\n", nil, nil},
		{"the provider's keys kept off, a user of ours", anna(annaKey), head + "allow_public_ssh_keys: false\n", nil, nil},
		// Keys that do not work.
		{"a certificate", anna(), list + "    ssh_authorized_keys: ['" + certKey + "']\n", []problem{{"users[1].ssh_authorized_keys[0]", ErrNoUsableKey}}, nil},
		{"a short RSA key", anna(), list + "    ssh_authorized_keys: ['" + rsa1024Key + "']\n", []problem{{"users[1].ssh_authorized_keys[0]", ErrNoUsableKey}}, nil},
		{"a short RSA key beside a good one", anna(), list + "    ssh_authorized_keys:\n    - " + rsa1024Key + "\n    - " + annaKey + "\n", nil, []problem{{"users[1].ssh_authorized_keys[0]", ErrWeakKey}}},
		{"a forced command only", anna(), list + "    ssh_authorized_keys:\n    - " + forcedKey + "\n", nil, []problem{{"users[1].ssh_authorized_keys", ErrForcedCommand}}},
		{"a forced command beside a key", anna(), list + "    ssh_authorized_keys:\n    - " + forcedKey + "\n    - " + annaKey + "\n", nil, nil},
		{"a forced command of ours", anna(forcedKey), head, nil, []problem{{"users[0].ssh_keys", ErrForcedCommand}}},
		{"from= of ours", anna(fromKey), head, nil, nil},
		{"ssh_redirect_user", anna(), list + "    ssh_redirect_user: true\n", []problem{{"users[1].ssh_redirect_user", ErrRedirected}}, nil},
		{"ssh_redirect_user off", anna(), list + "    ssh_redirect_user: false\n" + key, nil, nil},
		// Accounts that do not let in.
		{"nologin", anna(), list + key + "    shell: /usr/sbin/nologin\n", nil, []problem{{"users[1].shell", ErrNoShell}}},
		{"false", anna(), list + key + "    shell: /bin/false\n", nil, []problem{{"users[1].shell", ErrNoShell}}},
		{"nologin of ours", Spec{Users: []User{{Name: "anna", Recipients: []string{aliceAge}, SSHKeys: []string{annaKey}, Shell: "/sbin/nologin"}}}, head, nil, []problem{{"users[0].shell", ErrNoShell}}},
		{"nologin of a user who is not enrolled", enrolled("debian"), list + "    shell: /usr/sbin/nologin\n", nil, nil},
		{"expiredate", anna(), list + key + "    expiredate: '2020-01-01'\n", nil, []problem{{"users[1].expiredate", ErrAccountExpires}}},
		{"no home directory", anna(), list + key + "    no_create_home: true\n", nil, []problem{{"users[1].no_create_home", ErrNotCreated}}},
		{"a system user", anna(), list + key + "    system: true\n", nil, []problem{{"users[1].system", ErrNotCreated}}},
		{"not a system user", anna(), list + key + "    system: false\n", nil, nil},
		{"the image's user by the old key, nologin", enrolled("debian"), head + "user: {name: debian, shell: /bin/false}\n", nil, []problem{{"user.shell", ErrNoShell}}},
		// Passwords that expire.
		{"chpasswd", anna(), list + key + "chpasswd:\n  list: |\n    root:x\n    anna:R\n", nil, []problem{{"chpasswd", ErrPasswordExpires}}},
		{"chpasswd, a list", anna(), list + key + "chpasswd: {expire: true, list: ['anna:x']}\n", nil, []problem{{"chpasswd", ErrPasswordExpires}}},
		{"chpasswd, users", anna(), list + key + "chpasswd:\n  users:\n  - {name: anna, type: RANDOM}\n", nil, []problem{{"chpasswd", ErrPasswordExpires}}},
		{"chpasswd for root", enrolled("root"), head + "chpasswd: {list: ['root:x']}\n", nil, []problem{{"chpasswd", ErrPasswordExpires}}},
		{"chpasswd, not expired", anna(), list + key + "chpasswd: {expire: false, list: ['anna:x']}\n", nil, nil},
		{"chpasswd of others", anna(), list + key + "chpasswd: {list: ['mara:x']}\n", nil, nil},
		{"password of the image's user", enrolled("debian"), head + "password: x\n", nil, []problem{{"password", ErrPasswordExpires}}},
		{"password of the image's user, not expired", enrolled("debian"), head + "password: x\nchpasswd: {expire: false}\n", nil, nil},
		{"password of the image's user, anna is enrolled", anna(annaKey), head + "password: x\n", nil, nil},
		{"password of the image's user, by the old key", anna(), head + "user: anna\npassword: x\n", nil, []problem{{"password", ErrPasswordExpires}}},
		// Harmless.
		{"lock_passwd", anna(), list + key + "    lock_passwd: true\n", nil, nil},
		{"a hashed password", anna(), list + key + "    lock_passwd: false\n    passwd: $6$x\n", nil, nil},
		{"inactive", anna(), list + key + "    inactive: '5'\n", nil, nil},
		{"sudo", anna(), list + key + "    sudo: ALL=(ALL) NOPASSWD:ALL\n    groups: sudo\n", nil, nil},
		{"host keys", anna(), list + key + "ssh_deletekeys: true\nssh: {emit_keys_to_console: false}\nno_ssh_fingerprints: true\n", nil, nil},
		{"ssh_pwauth off", anna(), list + key + "ssh_pwauth: false\n", nil, nil},
		{"a script", enrolled("root"), "#!/bin/sh\ntrue\n", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.spec.Merge("web.yaml", []byte(tt.doc))
			var errs Errors
			errors.As(err, &errs)
			checkProblems(t, "errors", errs, tt.errs)
			warnings, more := tt.spec.Review(Host{}, "web.yaml", []byte(tt.doc))
			checkProblems(t, "warnings", warnings, tt.warnings)
			checkProblems(t, "errors of the host", more, nil)
			for _, e := range append(errs, warnings...) {
				if !strings.HasPrefix(e.Path, "users[0].s") && (e.File != "web.yaml" || e.Line == 0) {
					t.Errorf("%v: names no file and line", e)
				}
			}
		})
	}
}

// TestRootDenied: an image that refuses root over SSH refuses a document for root.
func TestRootDenied(t *testing.T) {
	for word, want := range map[string][]problem{"auto": nil, "totp": nil, "deny": {{"users[0].name", ErrRootDenied}}} {
		_, errs := enrolled("root").Review(Host{Image: imageOf(t, "9.2", "sshd: {root_login: "+word+"}\n")}, "", nil)
		checkProblems(t, word, errs, want)
	}
}

// TestRootKeys: every document that enrolls root switches disable_root off, and no
// other does.
func TestRootKeys(t *testing.T) {
	docs := map[string]string{
		"none": "", "empty": "#cloud-config\n", "block": "#cloud-config\npackages: [git]\n", "json": "#cloud-config\n{\"packages\": [\"git\"]}\n",
		"off already": "#cloud-config\ndisable_root: false\n", "script": "#!/bin/sh\ntrue\n", "anchors": "#cloud-config\na: &a [x]\nwrite_files: *a\n",
	}
	for name, doc := range inPlace {
		docs["in-"+name] = doc
	}
	for name, doc := range docs {
		for user, want := range map[string]string{"root": "false", "debian": "none"} {
			t.Run(fmt.Sprintf("%s for %s", name, user), func(t *testing.T) {
				s := enrolled(user)
				out, err := s.Document()
				if doc != "" {
					out, err = s.Merge("", []byte(doc))
				}
				if err != nil {
					t.Fatal(err)
				}
				if name == "off already" {
					want = "false"
				}
				text := string(out)
				if _, ours, ok := strings.Cut(text, `filename="totp.cfg"`); ok {
					_, text, _ = strings.Cut(ours, "\n\n")
					text, _, _ = strings.Cut(text, "\n--totp-")
				}
				top, e := parse([]byte(text))
				if e != nil {
					t.Fatalf("%v\n%s", e, text)
				}
				got := "none"
				if f, e := top.get(disableRoot); e != nil {
					t.Error(e)
				} else if f != nil {
					got = f.value.Value
				}
				if got != want {
					t.Errorf("disable_root: %s, want %s\n%s", got, want, out)
				}
			})
		}
	}
}

// TestStrictKeys: what an image with strict algorithms accepts, is what its sshd gets.
func TestStrictKeys(t *testing.T) {
	conf, err := os.ReadFile(filepath.FromSlash("../internal/bake/testdata/00-00-totp.conf-strict.golden"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nRequiredRSASize %d\n", strictRSA); !strings.Contains(string(conf), want) {
		t.Errorf("the image does not say %q", want)
	}
	_, list, ok := strings.Cut(string(conf), "\nPubkeyAcceptedAlgorithms ")
	list, _, _ = strings.Cut(list, "\n")
	if !ok {
		t.Fatal("no PubkeyAcceptedAlgorithms")
	}
	want := map[string]bool{}
	for algorithm := range strings.SplitSeq(list, ",") {
		switch {
		case strings.Contains(algorithm, "-cert-"):
		case strings.HasPrefix(algorithm, "rsa-sha2-"):
			want["ssh-rsa"] = true
		default:
			want[algorithm] = true
		}
	}
	got := map[string]bool{}
	for _, typ := range strictTypes {
		got[typ] = true
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
