// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"filippo.io/age"
)

// systemAccounts are those of a Debian 12 cloud image, none of which is enrolled.
const systemAccounts = `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
sync:x:4:65534:sync:/bin:/bin/sync
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
news:x:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:x:13:13:proxy:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
list:x:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:x:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
systemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin
systemd-timesync:x:997:997:systemd Time Synchronization:/:/usr/sbin/nologin
messagebus:x:100:107::/nonexistent:/usr/sbin/nologin
systemd-resolve:x:996:996:systemd Resolver:/:/usr/sbin/nologin
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
polkitd:x:995:995:polkit:/nonexistent:/usr/sbin/nologin
unscd:x:102:109::/var/lib/unscd:/usr/sbin/nologin
ntpsec:x:103:112::/nonexistent:/usr/sbin/nologin
_chrony:x:104:113:Chrony daemon,,,:/var/lib/chrony:/usr/sbin/nologin
`

// machine makes a root like that of a Debian, with that many accounts to enroll.
func machine(dir string, users int) (string, error) {
	root, err := os.MkdirTemp(dir, "root-")
	if err != nil {
		return "", err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	// What is not there would have to be made, durably, at the agent's expense.
	for _, d := range []string{"dev", "etc/pam.d", "etc/ssh", "home", "proc", "root", "run", "sys", "tmp", "usr/lib", "usr/local/sbin", "usr/sbin", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	passwd, layer := systemAccounts, "version: 1\nissuer: Example Hosting\nusers:\n"
	for i := range users {
		passwd += fmt.Sprintf("user%d:x:%d:1000::/home/u:/bin/bash\n", i, 1000+i)
		layer += fmt.Sprintf("  - {name: user%d, recipients: [%s]}\n", i, id.Recipient())
	}
	files := map[string]string{
		"etc/passwd": passwd, "etc/hostname": "web-1\n", "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
		"etc/os-release": "ID=debian\nVERSION_ID=\"12\"\n", "etc/totp-agent/image.yaml": layer,
	}
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return root, os.Link(agent(dir, "amd64"), filepath.Join(root, "totp-agent"))
}

// boot gives this process and its children a new, empty /run in the root, as each
// boot has one: status and notice are written to memory there, not to the disk.
func boot(root string) error {
	runtime.LockOSThread() // what the thread has, the child is given
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount /: %w", err)
	}
	if err := syscall.Mount("tmpfs", filepath.Join(root, "run"), "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}
