import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'tap'
import { projectRoot } from '../launcher.ts'
import { VagrantLab, vagrantLacking } from './up.ts'

// Everything that docs/vm.md promises of `vagrant up`, on machines. What each step took is printed as comments; docs/lab.md has the last run's.
const nodes = ['node1', 'node2', 'node3']
const hello = 'http://hello.demo.svc.cluster.local'
const admin = join(projectRoot, '.vagrant/switchyard/kubeconfigs/admin.yaml')
const lacking = await vagrantLacking()

test('vagrant up', { skip: lacking ?? false, timeout: 7_000_000 }, async (t) => {
  const say = (what: string): void => t.comment(what)
  const lab = await VagrantLab.open({}, say)
  t.teardown(() => lab.close())
  await lab.vagrant('destroy', '-f')

  const kubectl = async (...args: string[]): Promise<string> => (await lab.host(['kubectl', '--kubeconfig', admin, ...args], 60_000)).out
  /** Asks again until it holds; the last answer otherwise. */
  const until = async (what: string, ask: () => Promise<string>, holds: (answer: string) => boolean, seconds = 300): Promise<string> => {
    const began = performance.now()
    for (;;) {
      const answer = await ask()
      const took = (performance.now() - began) / 1000
      if (holds(answer)) {
        say(`${took.toFixed(0)} s: ${what}`)
        return answer
      }
      if (took > seconds) return answer
      await wait(1000)
    }
  }
  const answered = (text: string): boolean => /^hello-[12] /m.test(text) || /hello-[12]/.test(text)
  // Every Pod of a machine is a network namespace that is not the machine's.
  const pods = `for p in /proc/[0-9]*; do n=$(sudo readlink $p/ns/net) || continue; [ "$n" = "$(readlink /proc/1/ns/net 2>/dev/null || sudo readlink /proc/1/ns/net)" ] && continue
    case " $seen " in *" $n "*) continue;; esac; seen="$seen $n"; sudo nsenter -t \${p#/proc/} -n -m -u sh -c 'echo "$(hostname): $(curl -s -m 20 ${hello})"'; done`

  /** curl by name from each node and from each Pod. */
  const reaches = async (when: string): Promise<void> => {
    for (const node of nodes) {
      const text = await until(`${node} asks ${hello}, ${when}`, async () => (await lab.on(node, `curl -s -m 20 ${hello}`)).out, answered, 240)
      t.match(text, /hello-[12]/, `${when}: ${node} gets an answer`)
    }
    let asked = 0
    for (const node of nodes) {
      const { out } = await lab.on(node, pods, 300_000)
      for (const line of out.split('\n').filter((l) => l.includes(':'))) {
        asked++
        t.match(line, /^[\w-]+: .*hello-[12]/, `${when}: the Pod ${line.split(':')[0]} on ${node} gets an answer`)
      }
    }
    t.ok(asked >= 3, `${when}: ${asked} Pods were asked`)
  }
  const ready = (count: number) =>
    until(
      `${count} nodes are Ready`,
      () => kubectl('get', 'nodes', '--no-headers'),
      (text) => (text.match(/ Ready /g) ?? []).length === count,
    )

  const up = await lab.vagrant('up')
  t.match(up.out, /Try:[\s\S]*vagrant ssh node2 -c/, 'it ends by saying what to try')
  t.equal((await ready(3)).match(/ Ready /g)?.length, 3, 'kubectl from the host sees three nodes')
  for (const [i, node] of nodes.entries()) t.match(await kubectl('get', 'node', node, '-o', 'wide'), new RegExp(`192\\.168\\.56\\.${11 + i}`), `${node} announces its private address`)
  t.match((await lab.vagrant('ssh', 'node2', '-c', `curl -s ${hello}`)).out, /hello-[12]/)
  t.match((await lab.host(['curl', '-s', '-m', '20', '-H', 'Host: hello.example.com', 'http://192.168.56.11/'])).out, /hello-[12]/, 'the ingress answers the host')
  for (const node of nodes) {
    t.equal(
      (await lab.on(node, 'sudo find /etc/switchyard -name "*.yaml" -perm /077 -o -name "*.key" -perm /077; ls -d /home/vagrant/.switchyard 2> /dev/null')).out,
      '',
      `${node}: no secret is readable by others or left over`,
    )
    t.match(
      (await lab.on(node, 'sudo openssl x509 -noout -subject -in /etc/switchyard/node.crt 2> /dev/null || sudo grep -c client-certificate /etc/switchyard/agent.yaml')).out,
      new RegExp(`${node}|1`),
    )
  }

  for (const mode of ['nftables', 'iptables', 'ipvs', 'userspace']) {
    for (const node of nodes) t.equal((await lab.on(node, `sudo sed -i s/^MODE=.*/MODE=${mode}/ /etc/switchyard/node.env && sudo systemctl restart switchyard-proxy`)).status, 0)
    await reaches(mode)
    for (const node of nodes)
      t.match(
        (await lab.on(node, 'systemctl show -p ActiveState,NRestarts switchyard-proxy')).out,
        /NRestarts=0\s+ActiveState=active|ActiveState=active\s+NRestarts=0/,
        `${mode}: the proxy of ${node} runs`,
      )
  }
  for (const node of nodes) await lab.on(node, 'sudo sed -i s/^MODE=.*/MODE=nftables/ /etc/switchyard/node.env && sudo systemctl restart switchyard-proxy')

  await lab.vagrant('reload')
  await lab.forget()
  await ready(3)
  await reaches('after vagrant reload')

  await lab.vagrant('halt')
  await lab.vagrant('up')
  await lab.forget()
  await ready(3)
  await reaches('after vagrant halt and up')

  // A worker with an endpoint, if one has it.
  const where = await kubectl('-n', 'demo', 'get', 'pods', '-o', 'jsonpath={range .items[*]}{.metadata.name}={.spec.nodeName} {end}')
  const lost = /hello-\d=(node[23])/.exec(where)?.[1] ?? 'node3'
  say(`Pods: ${where}; ${lost} is destroyed`)
  await lab.vagrant('destroy', '-f', lost)
  t.match(
    await until(
      `${lost} is not Ready`,
      () => kubectl('get', 'node', lost, '--no-headers'),
      (text) => text.includes('NotReady'),
    ),
    /NotReady/,
    'a destroyed worker is noticed',
  )
  const endpoints = (): Promise<string> =>
    kubectl('-n', 'demo', 'get', 'endpointslices', '-l', 'kubernetes.io/service-name=hello', '-o', 'jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName} {end}')
  t.notMatch(await until('its endpoints are gone', endpoints, (text) => !text.includes(lost)), lost, 'its endpoints go')
  await lab.vagrant('up')
  await lab.forget()
  t.equal((await ready(3)).match(/ Ready /g)?.length, 3, 'vagrant up brings it back')
  await reaches('after a destroyed worker came back')
  t.notMatch(readFileSync(admin, 'utf8'), /192\.168\.(?!56\.)/, 'the kubeconfig names the private address')
})
