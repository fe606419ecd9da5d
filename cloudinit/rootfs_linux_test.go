// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// reader has cloud-init's own code read the documents of a directory: what are
// their parts, and what cloud-config comes out of them. A document with a file
// NAME.vendor beside it is laid over that, as an instance does.
const reader = `
import base64, json, os, sys
from cloudinit import helpers, user_data, util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler

def read(name):
    with open(name, "rb") as f:
        blob = f.read()
    paths = helpers.Paths({"cloud_dir": "/tmp/cloud", "run_dir": "/tmp/run"})
    message = user_data.UserDataProcessor(paths).process(blob)
    handler = CloudConfigPartHandler(paths)
    handler.handle_part(None, "__begin__", None, None, None, {})
    parts = []
    for part in message.walk():
        if part.get_content_maintype() == "multipart":
            continue
        payload = util.fully_decoded_payload(part)
        if isinstance(payload, str):
            payload = payload.encode("utf-8", "surrogateescape")
        parts.append([part.get_content_type(), base64.b64encode(payload).decode()])
        if part.get_content_type() == "text/cloud-config":
            handler.handle_part(None, "text/cloud-config", "x", payload.decode(), None, dict(part))
    return parts, handler.cloud_buf or {}

out = {}
for name in sorted(os.listdir(sys.argv[1])):
    if name.endswith(".vendor"):
        continue
    path = os.path.join(sys.argv[1], name)
    parts, config = read(path)
    if os.path.exists(path + ".vendor"):
        config = util.mergemanydict([config, read(path + ".vendor")[1]])
    out[name] = {"parts": parts, "config": config}
json.dump(out, sys.stdout)
`

type readDocument struct {
	Parts  [][2]string
	Config struct {
		Users      []any
		Runcmd     []any
		WriteFiles []struct{ Path, Content string } `json:"write_files"`
		MergeHow   any                              `json:"merge_how"`
	}
}

// TestCloudInit has the cloud-init of each Debian that TOTP_ROOTFS names, and the
// newest that there is, judge and read what this package writes. See TestRootfs in
// internal/bake.
func TestCloudInit(t *testing.T) {
	roots := os.Getenv("TOTP_ROOTFS")
	skip := t.Skip
	if os.Getenv("CI") == "true" {
		skip = t.Fatal
	}
	if roots == "" {
		skip("TOTP_ROOTFS names no root file system; .ci/run makes them by mmdebstrap, as .cache/bake-root-SUITE, and joins their paths by colons")
	}
	if os.Geteuid() != 0 {
		skip("only root can chroot")
	}
	cache, err := rootfs.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	newest, err := rootfs.Build(t.Context(), rootfs.CloudTesting, cache, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(filepath.SplitList(roots), newest) {
		t.Run(filepath.Base(dir), func(t *testing.T) { testCloudInit(t, overlay(t, dir)) })
	}
}

// overlay lays a writable layer over a root, which is not changed.
func overlay(t *testing.T, lower string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	if out, err := exec.Command("mount", "-t", "overlay", "overlay", "-o",
		"lowerdir="+lower+",upperdir="+filepath.Join(dir, "upper")+",workdir="+filepath.Join(dir, "work"), root).CombinedOutput(); err != nil {
		if out, err := exec.Command("cp", "-a", lower+"/.", root).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		t.Logf("no overlay, copied: %v\n%s", err, out)
		return root
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", root).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return root
}

func testCloudInit(t *testing.T, root string) {
	docs := filepath.Join(root, "docs")
	if err := os.Mkdir(docs, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(docs, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	merge := func(s Spec, doc string) []byte {
		out, err := s.Merge("", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, s := range specs {
		doc, err := s.Document()
		if err != nil {
			t.Fatal(err)
		}
		put("spec-"+name, doc)
	}
	for name, doc := range inPlace {
		put("in-"+name, merge(ours, doc))
	}
	for name, b := range besides {
		if name != "include" { // it would fetch
			put("beside-"+name, merge(ours, b.doc))
		}
	}
	customers := map[string]string{
		"files":  "#cloud-config\nwrite_files:\n  - {path: /root/customer, content: x}\nusers: [default]\nruncmd: [[customer]]\n",
		"script": "#!/bin/sh\ntrue\n",
	}
	hosts := map[string]string{
		"alone":  "",
		"merged": "#cloud-config\nwrite_files:\n  - {path: /root/host, content: x}\nruncmd: [[host]]\n",
		"script": "#!/bin/sh\ntrue\n",
	}
	for host, doc := range hosts {
		layer, err := specs["vendor"].Document()
		if err != nil {
			t.Fatal(err)
		}
		if doc != "" {
			layer = merge(specs["vendor"], doc)
		}
		for customer, doc := range customers {
			name := "over-" + host + "-" + customer
			put(name, merge(ours, doc))
			put(name+".vendor", layer)
		}
	}

	version, err := exec.Command("chroot", root, "dpkg-query", "-W", "-f", "${Version}", "cloud-init").Output()
	if err != nil {
		t.Fatal(err)
	}
	testVendor(t, root)
	// Each takes a second or two. A multi-part cannot be checked: schema knows none, in
	// cloud-init 20.4, 22.4, 25.1 and 26.2.
	put("spec-vendor-merged", merge(specs["vendor"], hosts["merged"]))
	for _, name := range []string{"spec-owner", "spec-mixed", "spec-vendor", "in-plain", "spec-vendor-merged"} {
		args := []string{root, "cloud-init", "schema", "-c", "/docs/" + name}
		if strings.HasPrefix(string(version), "20.") {
			args = slices.Insert(args, 2, "devel")
		}
		if out, err := exec.Command("chroot", args...).CombinedOutput(); err != nil || !strings.Contains(string(out), "Valid ") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}

	cmd := exec.Command("chroot", root, "python3", "-", "/docs")
	cmd.Stdin = strings.NewReader(reader)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errOut.String())
	}
	var read map[string]readDocument
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	layer, err := ours.Layer()
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range read {
		kind, rest, _ := strings.Cut(name, "-")
		if kind == "spec" {
			continue
		}
		n := 0
		for _, f := range d.Config.WriteFiles {
			if f.Path == ours.File() && f.Content == string(layer) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: the layer is written %d times by %v", name, n, d.Config.WriteFiles)
		}
		if got := accounts(d.Config.Users); !slices.Contains(got, "alice") {
			t.Errorf("%s: users are %q", name, got)
		}
		switch kind {
		case "in":
			if rest != "same-user" && d.Config.Users[0] == "alice" {
				t.Errorf("%s: users are %v", name, d.Config.Users)
			}
		case "beside":
			checkBeside(t, rest, d)
		case "over":
			checkOver(t, rest, d)
		}
	}
	for _, name := range []string{"spec-vendor", "over-alone-files", "beside-mime", "in-plain"} {
		if _, ok := read[name]; !ok {
			t.Errorf("%s was not read", name)
		}
	}
}

// testVendor wants the datasources of those providers to take vendor-data that
// [Provider] says do. The cloud-init of Debian 11 has not all of them.
func testVendor(t *testing.T, root string) {
	datasource := map[string]string{
		"azure": "Azure", "digitalocean": "DigitalOcean", "ec2": "Ec2", "gcp": "GCE", "hetzner": "Hetzner", "ibm": "IBMCloud", "linode": "Akamai",
		"nocloud": "NoCloud", "openstack": "OpenStack", "oracle": "Oracle", "proxmox": "NoCloud", "scaleway": "Scaleway", "upcloud": "UpCloud",
		"vmware": "VMware", "vultr": "Vultr",
	}
	for _, p := range Providers() {
		code, err := os.ReadFile(filepath.Join(root, "usr/lib/python3/dist-packages/cloudinit/sources/DataSource"+datasource[p.Name]+".py"))
		if errors.Is(err, fs.ErrNotExist) && datasource[p.Name] != "" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if takes := strings.Contains(string(code), "self.vendordata_raw = "); takes != p.Vendor {
			t.Errorf("%s: takes vendor-data: %v, want %v", p.Name, takes, p.Vendor)
		}
	}
}

func accounts(users []any) []string {
	var names []string
	for _, u := range users {
		switch u := u.(type) {
		case string:
			names = append(names, u)
		case map[string]any:
			names = append(names, u["name"].(string))
		}
	}
	return names
}

// checkBeside wants their part as they wrote it, and their users beside ours.
func checkBeside(t *testing.T, name string, d readDocument) {
	t.Helper()
	b := besides[name]
	types := map[string]string{
		"script": "text/x-shellscript", "script-no-end": "text/x-shellscript", "script-crlf": "text/x-shellscript", "script-utf8": "text/x-shellscript",
		"script-long": "text/x-shellscript", "jinja": "text/jinja2", "jinja-users": "text/jinja2", "jinja-no-users": "text/jinja2", "jinja-no-clash": "text/jinja2", "boothook": "text/cloud-boothook", "jsonp": "text/cloud-config-jsonp",
		"alias": "text/cloud-config", "anchored": "text/cloud-config", "merge-key": "text/cloud-config",
		"gzip": "text/cloud-config", "gzip-of-script": "text/x-shellscript",
		"mime": "text/cloud-config", "gzip-of-mime": "text/cloud-config", "archive": "text/cloud-config",
	}
	if got := d.Parts[0][0]; got != types[name] {
		t.Errorf("%s: their part is taken for %q, want %q", name, got, types[name])
	}
	want := b.doc
	if strings.HasPrefix(name, "gzip") {
		e := (*Error)(nil)
		text, e := unpack([]byte(b.doc))
		if e != nil {
			t.Fatal(e)
		}
		want = string(text)
	}
	got, err := base64.StdEncoding.DecodeString(d.Parts[0][1])
	if err != nil {
		t.Fatal(err)
	}
	if name != "archive" && !strings.Contains(name, "mime") && string(got) != want {
		t.Errorf("%s: their part is %q, want %q", name, got, want)
	}
	wantUsers := []string{"default", "alice"}
	if strings.Contains(name, "mime") {
		wantUsers = []string{"bob", "alice"}
	}
	if name == "jinja-users" {
		wantUsers = []string{"alice"} // the reader fills in no templates
	}
	if got := accounts(d.Config.Users); !slices.Equal(got, wantUsers) {
		t.Errorf("%s: users are %q, want %q", name, got, wantUsers)
	}
}

// checkOver wants what the host says beside what the customer says.
func checkOver(t *testing.T, name string, d readDocument) {
	t.Helper()
	host, customer, _ := strings.Cut(name, "-")
	want := []string{"/var/lib/cloud/instance/totp-vendor.yaml"}
	runs := 0
	if host == "merged" {
		want, runs = append(want, "/root/host"), runs+1
	}
	if customer == "files" {
		want, runs = append(want, "/root/customer"), runs+1
	}
	for _, path := range want {
		if !slices.ContainsFunc(d.Config.WriteFiles, func(f struct{ Path, Content string }) bool { return f.Path == path }) {
			t.Errorf("%s: %s is not written: %v", name, path, d.Config.WriteFiles)
		}
	}
	if len(d.Config.Runcmd) != runs {
		t.Errorf("%s: runcmd is %v, want %d commands", name, d.Config.Runcmd, runs)
	}
}
