// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// System is a release that base images can be made of.
type System struct {
	Name  string // for people
	File  string // for names of files
	Suite string // its code name

	mirrors  []string // lines of sources.list
	network  string   // how cloud-init is told of networkd
	packages []string // beside those of every system
	files    map[string]string
}

// With returns the system with packages of Debian and files beside those of every
// system.
func (s System) With(packages []string, files map[string]string) System {
	s.packages, s.files = packages, files
	return s
}

const (
	byCloudInit = "system_info:\n  network: {renderers: [networkd]}\n"
	byNetworkd  = "network: {config: disabled}\n" // all that cloud-init can that does not know networkd
)

// The systems that bake is proven on.
var (
	// Debian 11 is at its end, and its security archive lists a kernel that it
	// does not hold. What is in its last point release stays as it is.
	Debian11 = System{Name: "Debian 11", File: "debian-11", Suite: "bullseye", mirrors: []string{
		"deb http://deb.debian.org/debian bullseye main",
	}, network: byNetworkd}
	Debian12 = System{Name: "Debian 12", File: "debian-12", Suite: "bookworm", mirrors: []string{
		"deb http://deb.debian.org/debian bookworm main",
		"deb http://deb.debian.org/debian bookworm-updates main",
		"deb http://deb.debian.org/debian-security bookworm-security main",
	}, network: byCloudInit}
	Debian13 = System{Name: "Debian 13", File: "debian-13", Suite: "trixie", mirrors: []string{
		"deb http://deb.debian.org/debian trixie main",
		"deb http://deb.debian.org/debian trixie-updates main",
		"deb http://deb.debian.org/debian-security trixie-security main",
	}, network: byCloudInit}
)

// imageRecipe is what an image is made of.
type imageRecipe struct {
	Suite    string
	Mirrors  []string // lines of sources.list
	Packages []string
	Size     string            // of the disk, as mke2fs takes it
	Proxies  map[string]string // of apt in the guest, by scheme
	Files    map[string]string // written over those of the packages
	Mask     []string          // units
	Enable   []string
}

// hostInGuest is this machine's address in QEMU's user network.
const hostInGuest = "10.0.2.2"

// recipe is a small Debian server with cloud-init, as they are found at hosting
// providers, less what costs time at each boot. sshd, PAM and sudo are as Debian
// ships them, and the PAM module is not there.
func recipe(s System, proxies map[string]string) imageRecipe {
	r := imageRecipe{
		Suite:   s.Suite,
		Mirrors: s.mirrors,
		Packages: []string{
			"linux-image-cloud-amd64", "initramfs-tools", "zstd", "kmod", "udev",
			"systemd-sysv", "dbus", // logind wants dbus, and it is who hears the power button
			"iproute2", "netbase", "ca-certificates", "python3-minimal",
			"e2fsprogs", // cloud-init wants resize2fs, and calls a boot without it failed
			"cloud-init", "openssh-server", "sudo",
		},
		Size:    "2G",
		Proxies: proxies,
		Files: map[string]string{
			"/etc/hostname":    "debian\n",
			"/etc/fstab":       "/dev/vda / ext4 defaults,noatime 0 0\n",
			"/etc/resolv.conf": "nameserver 10.0.2.3\n", // QEMU's own
			// Only the modules that find the disk, and the CD of Packer: udev, which loads
			// the others, now and then finds it after the cloud-init of Debian 13 has looked.
			"/etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=zstd\n",
			"/etc/initramfs-tools/modules":    "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\nsr_mod\nata_piix\n",
			"/etc/cloud/cloud.cfg.d/90_lab.cfg": `# The modules of the first two stages are Debian's: users, keys, write_files.
# Of the later ones, only what a server without apt settings or mounts needs.
cloud_config_modules: [set-passwords, runcmd]
cloud_final_modules: [scripts-user, ssh-authkey-fingerprints, keys-to-console, final-message]
datasource_list: [NoCloud, None]
manage_etc_hosts: localhost
ssh_genkeytypes: [ed25519, ecdsa]
apt: {preserve_sources_list: true}
` + s.network,
		},
		Mask: []string{
			"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
			"fstrim.timer", "systemd-pstore.service", "systemd-networkd-wait-online.service",
		},
		Enable: []string{"systemd-networkd.service"},
	}
	r.Packages = append(r.Packages, s.packages...)
	maps.Copy(r.Files, s.files)
	if s.network == byNetworkd {
		r.Files["/etc/systemd/network/50-lab.network"] = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n"
	}
	return r
}

// proxies returns the HTTP proxies that an environment asks for, as the guest
// reaches them.
func proxies(environ []string) map[string]string {
	found := map[string]string{}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		switch name = strings.ToLower(name); name {
		case "http_proxy", "https_proxy":
			if value == "" {
				continue
			}
			for _, local := range []string{"//localhost", "//127.0.0.1", "//[::1]"} {
				value = strings.Replace(value, local, "//"+hostInGuest, 1)
			}
			found[strings.TrimSuffix(name, "_proxy")] = value
		}
	}
	return found
}

// args are those of mmdebstrap.
func (r imageRecipe) args(customize, root string) []string {
	return append([]string{
		"--mode=root", "--variant=minbase", "--format=directory",
		"--include=" + strings.Join(r.Packages, ","),
		"--aptopt=APT::Install-Recommends \"false\"",
		"--aptopt=Acquire::Languages \"none\"",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--customize-hook=" + customize,
		r.Suite, root,
	}, r.Mirrors...)
}

// customize returns the shell script that is run on the root, its only argument.
func (r imageRecipe) customize() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\ncd \"$1\"\n")
	files := maps.Clone(r.Files)
	var apt strings.Builder
	for _, scheme := range slices.Sorted(maps.Keys(r.Proxies)) {
		fmt.Fprintf(&apt, "Acquire::%s::Proxy \"%s\";\n", scheme, r.Proxies[scheme])
	}
	if apt.Len() > 0 {
		files["/etc/apt/apt.conf.d/90lab"] = apt.String()
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		// A link, as resolv.conf can be one, is replaced.
		fmt.Fprintf(&b, "rm -f .%s\ncat >.%s <<'EOF'\n%sEOF\n", name, name, files[name])
	}
	for _, unit := range r.Mask {
		fmt.Fprintf(&b, "ln -sf /dev/null etc/systemd/system/%s\n", unit)
	}
	for _, unit := range r.Enable {
		fmt.Fprintf(&b, "chroot . systemctl enable --quiet %s\n", unit)
	}
	b.WriteString("chroot . update-initramfs -u -k all\n")
	return b.String()
}
