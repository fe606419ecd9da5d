// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// The user-data of a server whose cards leave by every channel that needs no
// hardware. The files of the channel http are root's alone.
const allChannels = `#cloud-config
totp:
  version: 1
  channels:
    - {type: http, url: "https://127.0.0.1:8443/{id}", ca_file: /etc/panel/ca.pem, client_cert: /etc/panel/client.pem, client_key: /etc/panel/client.key}
    - {type: file}
    - {type: console}
    - {type: ssh-banner, recipients: any}
  jitter: 0s
`

// panelServer takes envelopes over HTTPS, and notes the user at the other end of each
// connection. It wants a client certificate.
const panelServer = `import http.server, ssl
class H(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        port = '%04X' % self.client_address[1]
        uid = [l.split()[7] for l in open('/proc/net/tcp') if l.split()[1].endswith(':' + port)]
        open('/etc/panel/received', 'a').write('%s %d\n' % (','.join(uid), len(body)))
        self.send_response(201); self.send_header('Content-Length', '0'); self.end_headers()
h = http.server.HTTPServer(('127.0.0.1', 8443), H)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain('/etc/panel/server.pem', '/etc/panel/server.key')
c.load_verify_locations('/etc/panel/ca.pem')
c.verify_mode = ssl.CERT_REQUIRED
h.socket = c.wrap_socket(h.socket, server_side=True)
h.serve_forever()
`

// withAllChannels returns a server that has delivered by all these channels.
func withAllChannels(t *testing.T, r rootfs.Recipe) *server {
	t.Helper()
	s := newServerOf(t, imageOf(t, r, forAliceAndBob), allChannels)
	if out, err := s.Disk().Command(t.Context(), "mkdir", "-m", "0700", "/etc/panel").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, text := range panelFiles(t) {
		s.write("/etc/panel/"+name, text, 0o600)
	}
	s.write("/etc/panel/server.py", panelServer, 0o600)
	s.write("/etc/systemd/system/panel.service", "[Unit]\nDefaultDependencies=no\nBefore=totp-agent.service\n[Service]\nExecStart=/usr/bin/python3 /etc/panel/server.py\n", 0o644)
	if out, err := s.Disk().Command(t.Context(), "sh", "-c", "mkdir -p /etc/systemd/system/totp-agent.service.wants && ln -s ../panel.service /etc/systemd/system/totp-agent.service.wants/").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.start()
	return s
}

// panelFiles are a CA and two certificates of it, with their keys.
func panelFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if name == "ca" {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.IPAddresses, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil, nil
			ca, caKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		files[name+".pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		files[name+".key"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	}
	return files
}

// The units do their work in their sandboxes, and what speaks to the network is not
// root.
func TestUnitsWorkConfined(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := withAllChannels(t, r)
		for _, name := range []string{"alice", "bob"} {
			u := s.user(name)
			states := map[string]int{}
			for _, d := range u.Delivery {
				states[d.State]++
			}
			if u.Card != deliver.Delivered || states[deliver.Delivered] != 1 || states[deliver.Offered] != 3 {
				t.Errorf("%s: %s, %+v", name, u.Card, u.Delivery)
			}
		}
		s.senderUsers(2)
		if n := strings.Count(s.Console(), "-----BEGIN TOTP ENVELOPE"); n < 2 {
			t.Errorf("console: %d envelopes", n)
		}
		if n := strings.Count(s.sh("cat "+target.Banner), "-----BEGIN AGE"); n != 2 {
			t.Errorf("banner: %d envelopes", n)
		}
		// Again, by hand: root's command uses the same process.
		_, errs, code := s.agent("reset", "alice")
		if code != 0 {
			t.Fatalf("reset: %s", errs)
		}
		s.must("systemctl", "stop", target.SendSocket)
		// The delivery that the reset has started may still be running.
		err := s.until("the end of another delivery", func() bool {
			_, errs, code = s.agent("deliver")
			return !strings.Contains(errs, target.ErrLocked.Error())
		})
		if err != nil || code != 0 {
			t.Fatalf("deliver: %v, %s", err, errs)
		}
		// A try of the timer may have come while the socket was stopped, and the next one
		// waits for its time.
		if err := s.until("the third envelope", func() bool {
			s.deliver()
			time.Sleep(3 * time.Second) // systemd starts a unit five times in ten seconds
			return strings.Count(s.read("/etc/panel/received"), "\n") >= 3
		}); err != nil {
			t.Error(err)
		}
		s.senderUsers(3)
		s.must("systemctl", "start", target.LoginsService)
		s.must("sh", "-c", "rm /etc/ssh/ssh_host_*_key*; systemctl restart "+target.HostKeyService+"; test -s /etc/ssh/ssh_host_ed25519_key")
		for _, unit := range []string{target.AgentService, target.DeliverService, target.LoginsService, target.ModuleService, target.HostKeyService} {
			if got := s.result(unit); got != "success" {
				t.Errorf("%s: %s", unit, got)
			}
		}
	})
}

// senderUsers looks who has sent the envelopes that the panel has received: users of
// systemd's dynamic range.
func (s *server) senderUsers(n int) {
	s.t.Helper()
	lines := strings.Fields(s.read("/etc/panel/received"))
	if len(lines) != 2*n {
		s.t.Errorf("%d envelopes received, want %d: %q", len(lines)/2, n, lines)
	}
	for i := 0; i < len(lines); i += 2 {
		if uid, err := strconv.Atoi(lines[i]); err != nil || uid < 61184 || uid > 65519 {
			s.t.Errorf("sent by uid %q", lines[i])
		}
	}
}

// The mark of a shutdown that has not come is carried out in a sandbox as well.
func TestCleanWorksConfined(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := newServer(t, r)
		if out, err := s.Disk().Command(t.Context(), "useradd", "-m", "builder").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		s.write(target.CleanMark, `{"user":"builder","sudo":true,"remove":true}`, 0o600)
		s.start()
		if got := s.result(target.CleanService); got != "success" {
			t.Errorf("%s: %s", target.CleanService, got)
		}
		if got := s.sh("id builder 2>&1 || true; ls -d /home/builder " + target.CleanMark + " 2>&1 || true"); strings.Count(got, "o such") != 3 {
			t.Errorf("left: %s", got)
		}
	})
}

// hostile are the steps of a program that has taken over a unit. Each is a shell
// command that succeeds if the step does.
type hostile struct{ name, step string }

// A hostile program that runs instead of the delivery units can do none of this. The steps run
// in copies of the units, which have only another program.
func TestHostileStepsFail(t *testing.T) {
	trusted := []string{target.CleanMark, target.Identity, target.Report, target.StateDir + "/layers.json", target.Status, target.Notice, target.NoticeConf, target.ImagePolicy,
		target.PAMService, target.SSHDDropIn, target.PAMStateDir + "/mallory", "/etc/systemd/system/x.service", "/usr/local/sbin/x", "/etc/cron.d/x", "/root/x", "/home/x"}
	var both []hostile
	for _, name := range trusted {
		both = append(both, hostile{"write " + name, ": >>" + name})
	}
	for _, name := range []string{target.PAMStateDir + "/alice", target.Shadow, "/etc/ssh/ssh_host_ed25519_key", "/proc/1/root" + target.PAMStateDir + "/alice", "/proc/1/environ", "/proc/1/mem"} {
		both = append(both, hostile{"read " + name, "head -c1 " + name})
	}
	both = append(both,
		hostile{"read the state by a process of totp-logins", `for p in $(cat /tmp-pids); do ls /proc/$p/root` + target.PAMStateDir + ` && exit 0; done; false`},
		hostile{"talk to systemd", "systemctl stop ssh"},
		hostile{"connect to systemd", connect("/run/systemd/private")},
		hostile{"connect to D-Bus", connect("/run/dbus/system_bus_socket")},
		hostile{"mount", "mount -t tmpfs tmpfs /mnt"},
		hostile{"make a namespace", "unshare -m true"},
		hostile{"set the clock", "date -s 2001-01-01"},
		hostile{"change owner", "chown 1000 /var/tmp/."},
		hostile{"trace", "python3 -c 'import ctypes; raise SystemExit(ctypes.CDLL(None).ptrace(16, 1, 0, 0) != 0)'"},
	)
	steps := map[string][]hostile{
		target.DeliverService: append([]hostile{
			{"reach the network", "python3 -c \"import socket; socket.create_connection(('127.0.0.1', 8443), 5)\""},
			{"make a setuid program", "cp /bin/true " + target.Receipts + "/x && chmod 4755 " + target.Receipts + "/x"},
			// Not each container's systemd can refuse devices.
			{"open a disk", "test ! -e /any-device && head -c1 /disk-node"},
		}, both...),
		target.SendService: append([]hostile{
			{"be root", `test "$(id -u)" = 0`},
			{"read the outbox", "ls " + target.Ready},
			{"read receipts", "ls " + target.Receipts},
			{"read the policy", "cat " + target.ImagePolicy},
			{"read the layers", "ls /var/lib/cloud/instance/"},
			{"read the channel's key", "cat /etc/panel/client.key"},
			{"write receipts", ": >" + target.Receipts + "/x"},
			{"write the banner", ": >" + target.BannerDir + "/x"},
			{"change the banner", ": >" + target.Banner},
			{"ask for another envelope", connect(target.SendPath)},
			{"log", "python3 -c \"import socket; socket.socket(socket.AF_UNIX)\""},
			{"write anywhere on the disk", ": >/var/lib/x || : >/etc/x || : >/opt/x"},
			{"open the console", ": >/dev/console"},
		}, both...),
	}
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := withAllChannels(t, r)
		// A totp-logins that waits for the lock, as the one of the issue did.
		s.sh(`systemd-run --quiet --unit holder flock ` + target.StateDir + ` sleep 3000; sleep 1
systemctl start --no-block ` + target.LoginsService + `
for i in $(seq 100); do pid=$(systemctl show -p MainPID --value ` + target.LoginsService + `); [ "$pid" != 0 ] && break; sleep 0.1; done
[ "$pid" != 0 ] && echo $pid >/tmp-pids && chmod 644 /tmp-pids
mknod /disk-node b 7 0; chmod 666 /disk-node
systemd-run --quiet -p Type=oneshot -p DevicePolicy=closed sh -c 'head -c1 /disk-node && touch /any-device' || true`)
		for unit, list := range steps {
			var script strings.Builder
			script.WriteString("exec 2>/dev/null >/dev/null\n")
			for i, h := range list {
				fmt.Fprintf(&script, "( %s ) && echo succeeded-%d-end >&3\n", h.step, i)
			}
			script.WriteString("echo all-steps-done >&3\n")
			s.write("/opt/hostile-"+unit, "#!/bin/sh\nexec 3>&1\n"+script.String(), 0o755)
			text := regexp.MustCompile(`(?m)^ExecStart=.*$`).ReplaceAllString(s.read(target.SystemdUnitDir+"/"+unit), "ExecStart=/bin/sh /opt/hostile-"+unit)
			text = regexp.MustCompile(`(?m)^(StandardInput|StandardOutput|MemoryDenyWriteExecute)=.*$`).ReplaceAllString(text, "")
			text = strings.Replace(text, "[Service]", "[Service]\nStandardOutput=journal", 1)
			if !strings.Contains(text, "Type=oneshot") {
				text = strings.Replace(text, "[Service]", "[Service]\nType=oneshot", 1)
				text = regexp.MustCompile(`(?m)^RuntimeMaxSec=.*$`).ReplaceAllString(text, "")
			}
			s.write("/etc/systemd/system/hostile.service", text, 0o644)
			out := s.sh("systemctl daemon-reload; systemctl start hostile.service || true; journalctl --sync; journalctl --no-pager -o cat -u hostile.service")
			s.sh("journalctl --rotate; journalctl --vacuum-time=1s >/dev/null 2>&1; true")
			if !strings.Contains(out, "all-steps-done") {
				t.Errorf("%s: the steps did not run:\n%s", unit, out)
			}
			for i, h := range list {
				if strings.Contains(out, fmt.Sprintf("succeeded-%d-end", i)) {
					t.Errorf("%s: %s: succeeded", unit, h.name)
				}
			}
		}
	})
}

// connect is a command that connects to a socket.
func connect(name string) string {
	return `python3 -c "import socket; socket.socket(socket.AF_UNIX).connect('` + name + `')"`
}
