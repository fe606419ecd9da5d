// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"io/fs"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

// A plan is all that bake puts on a machine besides the agent, the policy and
// the PAM service file. Check compares a machine with the same plan.
type plan struct {
	dirs  []dir
	files []file
	links []link

	// gone are files and links that another policy asks for.
	gone []string
}

type dir struct {
	path string
	mode fs.FileMode
}

type file struct {
	path string
	mode fs.FileMode
	data []byte
	unit bool // systemd's, not sshd's
}

// A link enables or masks a unit, as systemctl does.
type link struct{ path, dest string }

// templateFiles are the files that come from templates of the same path.
var templateFiles = []struct {
	path string
	mode fs.FileMode
}{
	{target.SystemdUnitDir + "/" + target.AgentService, 0o644},
	{target.SystemdUnitDir + "/" + target.DeliverService, 0o644},
	{target.SystemdUnitDir + "/" + target.DeliverTimer, 0o644},
	{target.SystemdUnitDir + "/" + target.SendService, 0o644},
	{target.SystemdUnitDir + "/" + target.SendSocket, 0o644},
	{target.SystemdUnitDir + "/" + target.LoginsService, 0o644},
	{target.SystemdUnitDir + "/" + target.LoginsPath, 0o644},
	{target.SystemdUnitDir + "/" + target.RepairService, 0o644},
	{target.SystemdUnitDir + "/" + target.RepairPath, 0o644},
	{target.SystemdUnitDir + "/" + target.RecheckService, 0o644},
	{target.SystemdUnitDir + "/" + target.CleanService, 0o644},
	{target.SystemdUnitDir + "/" + target.HostKeyService, 0o644},
	{sshUnitTemplate, 0o644},
	{target.SystemdUnitDir + "/" + target.ModuleService, 0o644},
	{target.CloudModule, 0o644},
	{sshTemplateDropIn, 0o644},
	{target.SystemdPresetDir + "/00-totp.preset", 0o644},
	{target.TmpfilesConf, 0o644},
	{dpkgHook, 0o644},
}

// dpkgHook is for systems with dpkg.
const dpkgHook = target.DpkgConfigDir + "/totp-agent"

// The drop-ins of sshd's own units are named as in the first system of the table;
// the others have them beside their own units.
const (
	sshUnitTemplate   = target.SystemdUnitDir + "/ssh.service.d/00-totp.conf"
	sshTemplateDropIn = target.SystemdUnitDir + "/ssh@.service.d/00-totp.conf"
)

// sshUnitDropIn is the drop-in of the unit that starts sshd.
func (s system) sshUnitDropIn() string { return dropInOf(s.sshService, sshUnitTemplate) }

// dropInOf is where the drop-in of a unit lies, named as a template.
func dropInOf(unit, template string) string {
	return path.Join(target.SystemdUnitDir, unit+".d", path.Base(template))
}

// dirs are the directories whose mode and owner matter.
var dirs = []dir{
	{target.PolicyDir, 0o755},
	{target.StateDir, 0o700},
	{target.PAMStateDir, 0o700},
}

func (f *facts) plan(ctx context.Context, t *target.Target) (*plan, error) {
	var err error
	if f.openSSH, err = t.OpenSSH(ctx); err != nil {
		return nil, err
	}
	algorithms, err := supportedAlgorithms(ctx, t, f.openSSH, f.policy.SSHD)
	if err != nil {
		return nil, err
	}
	roots, err := rootNames(t)
	if err != nil {
		return nil, err
	}
	conf, err := f.dropIn(algorithms, roots)
	if err != nil {
		return nil, err
	}
	var keys templates.HostKeys
	if named(ours, f.policy.SSHD.Algorithms) {
		keys.Keys = hostKeys
	}
	hostKeyConf, err := templates.Render(strings.TrimPrefix(target.SSHDHostKeys, "/"), keys)
	if err != nil {
		return nil, err
	}
	mainFile, err := templates.Render(strings.TrimPrefix(target.SSHDMain, "/"), templates.SSHDMain{Login: target.SSHDLogin, Config: target.SSHDConfig})
	if err != nil {
		return nil, err
	}
	p := &plan{dirs: dirs, files: []file{
		{path: target.SSHDDropIn, mode: 0o600, data: conf},
		{path: target.SSHDLogin, mode: 0o600, data: conf},
		{path: target.SSHDMain, mode: 0o600, data: mainFile},
		{path: target.SSHDHostKeys, mode: 0o600, data: hostKeyConf},
	}}
	for _, tf := range templateFiles {
		if tf.path == dpkgHook && !f.dpkg {
			continue
		}
		if moduleFile(tf.path) && !f.policy.CloudInitModule {
			p.gone = append(p.gone, tf.path)
			continue
		}
		var data templates.Data = templates.Agent{
			Program:     target.AgentPath,
			PAMStateDir: target.PAMStateDir,
			StateDir:    target.StateDir,
			SendPath:    target.SendPath,
			RunDir:      strings.TrimPrefix(target.RunDir, "/run/"),
			Tally:       target.PAMTallyDir,
			PAMDirs:     f.pamDirs(t),
			CleanMark:   target.CleanMark,
			SSHService:  f.sshService,
			SSHSocket:   f.sshSocket,
			Module:      target.CloudModule,
		}
		paths := []string{tf.path}
		switch tf.path {
		case sshUnitTemplate:
			data = f.unitData(f.sshdStart)
			paths = []string{f.sshUnitDropIn()}
		case sshTemplateDropIn:
			data = f.unitData(f.sshdInetd)
			paths = nil
			for _, unit := range f.sshTemplates {
				paths = append(paths, dropInOf(unit, tf.path))
			}
		}
		text, err := templates.Render(strings.TrimPrefix(tf.path, "/"), data)
		if err != nil {
			return nil, err
		}
		for _, name := range paths {
			p.files = append(p.files, file{path: name, mode: tf.mode, data: text, unit: true})
		}
	}
	if !f.policy.CloudInitModuleListed {
		p.gone = append(p.gone, target.CloudModuleList)
	}
	const etc = target.SystemdUnitDir + "/"
	p.links = []link{
		{etc + f.sshService + ".wants/" + target.AgentService, etc + target.AgentService},
		{etc + f.sshService + ".wants/" + target.HostKeyService, etc + target.HostKeyService},
		{etc + "sysinit.target.wants/" + target.CleanService, etc + target.CleanService},
		{etc + "timers.target.wants/" + target.DeliverTimer, etc + target.DeliverTimer},
		{etc + "multi-user.target.wants/" + target.LoginsPath, etc + target.LoginsPath},
		{etc + "multi-user.target.wants/" + target.RepairPath, etc + target.RepairPath},
		{etc + "multi-user.target.wants/" + target.RecheckService, etc + target.RecheckService},
		{etc + "multi-user.target.wants/" + f.sshService, f.sshUnit},
		{etc + f.sshSocket, "/dev/null"},
	}
	call := link{etc + f.sshService + ".wants/" + target.ModuleService, etc + target.ModuleService}
	if f.policy.CloudInitModule {
		p.links = append(p.links, call)
	} else {
		p.gone = append(p.gone, call.path)
	}
	return p, nil
}
