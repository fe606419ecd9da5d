// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

// pageSource is the page as it is built and committed, and in totpctl.
const pageSource = "cmd/totpctl/page/page.html"

// build makes all files of a release in dir, which it empties first.
func build(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	if err := checkAgent(ctx, work); err != nil {
		return err
	}

	// The plugin itself knows the version of the protocol that it speaks.
	probe := filepath.Join(work, "packer-plugin-totp")
	if err := compile(ctx, platform{runtime.GOOS, runtime.GOARCH}, ".", probe); err != nil {
		return err
	}
	d, err := describe(ctx, probe)
	if err != nil {
		return err
	}

	licence, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	var plugins, tools []string
	for _, p := range platforms {
		start := time.Now()
		for _, a := range []struct {
			base, binary, source string
			more                 map[string][]byte
			list                 *[]string
		}{
			{pluginBase(p, d.APIVersion), pluginBase(p, d.APIVersion) + p.exe(), ".", nil, &plugins},
			{totpctlBase(p), "totpctl" + p.exe(), "./cmd/totpctl", map[string][]byte{"LICENSE": licence}, &tools},
		} {
			bin := filepath.Join(work, "binary")
			if err := compile(ctx, p, a.source, bin); err != nil {
				return err
			}
			data, err := os.ReadFile(bin)
			if err != nil {
				return err
			}
			files := []entry{{a.binary, 0o755, data}}
			for name, data := range a.more {
				files = append(files, entry{name, 0o644, data})
			}
			packed, err := archive(files)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, a.base+".zip"), packed, 0o644); err != nil {
				return err
			}
			*a.list = append(*a.list, a.base+".zip")
		}
		fmt.Printf("release: %s/%s built  (%.1fs)\n", p.OS, p.Arch, time.Since(start).Seconds())
	}
	page, err := os.ReadFile(pageSource)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, pageName()), page, 0o644); err != nil {
		return err
	}
	tools = append(tools, pageName())
	if err := writeSums(dir, pluginSums(), plugins); err != nil {
		return err
	}
	return writeSums(dir, totpctlSums(), tools)
}

// checkAgent asks the agent that is about to be embedded for its version: one
// that was built for a working copy must not get into a release.
func checkAgent(ctx context.Context, work string) error {
	if runtime.GOOS != "linux" {
		return nil // it cannot be run here
	}
	name := "internal/agentbin/agents/totp-agent-linux-" + runtime.GOARCH + ".gz"
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	bin := filepath.Join(work, "totp-agent")
	if err := os.WriteFile(bin, data, 0o700); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if said := strings.TrimSpace(string(out)); said != "totp-agent "+version.Version {
		return fmt.Errorf("%s: %w: it says %q; build it with `make agent PRERELEASE=`", name, errVersion, said)
	}
	return nil
}

// compile builds one program with the agents in it, for release.
func compile(ctx context.Context, p platform, source, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "embed_agent",
		"-ldflags", "-s -w -X "+module+"/version.VersionPrerelease=", "-o", out, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s for %s/%s: %w; are the agents built? see `make agent`", source, p.OS, p.Arch, err)
	}
	return nil
}

// entry is one file of an archive.
type entry struct {
	name string
	mode fs.FileMode
	data []byte
}

// archive packs files. The result depends on nothing but them: the time is the
// first that zip can express.
func archive(files []entry) ([]byte, error) {
	slices.SortFunc(files, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	w.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		h.SetMode(f.mode)
		to, err := w.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := to.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// writeSums writes the SHA-256 sums of names, as sha256sum(1) does.
func writeSums(dir, list string, names []string) error {
	var b bytes.Buffer
	slices.Sort(names)
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), name)
	}
	return os.WriteFile(filepath.Join(dir, list), b.Bytes(), 0o644)
}
