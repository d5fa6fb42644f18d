import { execFile, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { FakeApi } from '../kube/testing/api.ts'
import { namespace, service, slice } from '../kube/testing/builders.ts'
import { upstream } from './testing/upstream.ts'

const launcher = new URL('../switchyard', import.meta.url).pathname
const { SWITCHYARD_NAMESPACE: inside } = process.env

const musl = `#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int n, char **names) {
  for (int i = 1; i < n; i++) {
    struct addrinfo how = { .ai_socktype = SOCK_STREAM }, *all;
    int r = getaddrinfo(names[i], 0, &how, &all);
    if (r) { printf("%s: %s\\n", names[i], r == EAI_NONAME ? "no such name" : gai_strerror(r)); continue; }
    for (; all; all = all->ai_next) {
      char text[64];
      void *at = all->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)all->ai_addr)->sin_addr : (void *)&((struct sockaddr_in6 *)all->ai_addr)->sin6_addr;
      printf("%s: %s\\n", names[i], inet_ntop(all->ai_family, at, text, sizeof text));
    }
  }
}
`

// Real resolvers as a Pod has them: a network of its own, and a resolv.conf as the kubelet writes it.
if (inside !== '1' && process.getuid?.() === 0) {
  process.exitCode =
    spawnSync('unshare', ['-n', '-m', process.execPath, ...process.execArgv, import.meta.filename], { stdio: 'inherit', env: { ...process.env, SWITCHYARD_NAMESPACE: '1' } }).status ?? 1
} else if (inside !== '1') test('network namespaces need root', { skip: 'not root' }, async () => {})
else {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-resolvers-'))
  // Not in step: the API server runs in this process.
  const run = (command: string, ...args: readonly string[]): Promise<string> =>
    new Promise((resolve) => execFile(command, args, { timeout: 60_000 }, (error, stdout) => resolve(error !== null && stdout === '' && error.code === 'ENOENT' ? String(error) : stdout.trim())))
  const lacks = (command: string): string | false => (spawnSync(command, ['--version']).error === undefined ? false : `${command} is not installed`)
  writeFileSync(join(folder, 'resolv.conf'), 'nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:10\n')
  await run('ip', 'link', 'set', 'lo', 'up')
  await run('ip', 'addr', 'add', '10.96.0.10/32', 'dev', 'lo')
  // Without an address of the family glibc asks for none of it.
  await run('ip', 'addr', 'add', 'fd00:10:244::1/128', 'dev', 'lo', 'nodad')
  await run('mount', '--bind', join(folder, 'resolv.conf'), '/etc/resolv.conf')

  test('real resolvers', async (t) => {
    const api = await FakeApi.start()
    api.putAll([
      namespace('shop'),
      namespace('other'),
      service('shop/api', { clusterIP: '10.96.8.20', ports: ['http:80'] }),
      service('shop/dual', { clusterIP: '10.96.8.21', clusterIPs: ['10.96.8.21', 'fd00:10:96::21'] }),
      service('other/db', { clusterIP: 'None', ports: ['pg:5432'] }),
      slice('other/db', ['10.244.1.5 hostname=db-0', '10.244.1.6 hostname=db-1'], ['pg:5432']),
      service('shop/ext', { type: 'ExternalName', externalName: 'db.other.svc.cluster.local', ports: [] }),
      service('shop/big', { clusterIP: 'None' }),
      slice(
        'shop/big',
        Array.from({ length: 100 }, (_, i) => `10.244.9.${i}`),
      ),
    ])
    const outside = await upstream(() => ({ rcode: 3 }))
    writeFileSync(join(folder, 'Corefile'), `. {\n kubernetes cluster.local in-addr.arpa\n forward . 127.0.0.1:${outside.port}\n loadbalance\n}\n`)
    const child = spawn(launcher, ['dns', '--kubeconfig', api.kubeconfig(), '--listen', '10.96.0.10:53', '--status', '127.0.0.1:0', '--config', join(folder, 'Corefile')], { stdio: 'ignore' })
    const exited = new Promise((r) => child.once('exit', r))
    t.teardown(async () => {
      child.kill('SIGTERM')
      await exited
      await outside.close()
      await api.close()
      rmSync(folder, { recursive: true, force: true })
    })
    // All has been read once the last of it is there.
    for (let tries = 0; tries < 400 && (await run('dig', '+short', '+tcp', '+time=1', '+tries=1', 'big.shop.svc.cluster.local')).split('\n').length < 100; tries++)
      await new Promise((r) => setTimeout(r, 50))
    const sorted = (text: string): string[] => [...new Set(text.split('\n').map((l) => l.trim().split(/\s+/)[0]!))].toSorted()

    await t.test('getaddrinfo of glibc', async (t2) => {
      const ask = async (name: string): Promise<string[]> => sorted(await run('getent', 'ahosts', name))
      t2.same(await ask('api'), ['10.96.8.20'])
      t2.same(await ask('dual'), ['10.96.8.21', 'fd00:10:96::21'])
      t2.same(await ask('db.other'), ['10.244.1.5', '10.244.1.6'])
      t2.same(await ask('db-1.db.other'), ['10.244.1.6'])
      t2.same(await ask('ext'), ['10.244.1.5', '10.244.1.6'], 'an alias')
      t2.same(await ask('api.shop.svc.cluster.local.'), ['10.96.8.20'])
      t2.equal((await ask('big')).length, 100, 'more than fits a datagram')
      t2.same(await ask('nobody'), [''])
      t2.equal((await run('getent', 'hosts', '10.96.8.20')).split(/\s+/)[1], 'api.shop.svc.cluster.local', 'backwards')
    })

    await t.test('getaddrinfo of musl', { skip: lacks('musl-gcc') }, async (t2) => {
      writeFileSync(join(folder, 'ask.c'), musl)
      await run('musl-gcc', '-static', '-o', join(folder, 'ask'), join(folder, 'ask.c'))
      t2.same((await run(join(folder, 'ask'), 'api', 'dual', 'db-0.db.other', 'ext', 'nobody')).split('\n').toSorted(), [
        'api: 10.96.8.20',
        'db-0.db.other: 10.244.1.5',
        'dual: 10.96.8.21',
        'dual: fd00:10:96::21',
        'ext: 10.244.1.5',
        'ext: 10.244.1.6',
        'nobody: no such name',
      ])
    })

    await t.test('kdig', { skip: lacks('kdig') }, async (t2) => {
      t2.equal(await run('kdig', '+short', 'api.shop.svc.cluster.local'), '10.96.8.20')
      t2.equal(await run('kdig', '+short', '+tcp', 'api.shop.svc.cluster.local'), '10.96.8.20')
      t2.equal(await run('kdig', '+short', '-x', '10.244.1.5'), 'db-0.db.other.svc.cluster.local.')
      t2.same((await run('kdig', '+short', '_pg._tcp.db.other.svc.cluster.local', 'SRV')).split('\n').toSorted(), [
        '0 50 5432 db-0.db.other.svc.cluster.local.',
        '0 50 5432 db-1.db.other.svc.cluster.local.',
      ])
      t2.match(await run('kdig', '+edns=0', '+padding=64', '+cookie=0102030405060708', 'api.shop.svc.cluster.local'), /status: NOERROR/)
    })

    await t.test('delv', { skip: lacks('delv') }, async (t2) => {
      t2.match(await run('delv', '@10.96.0.10', '-i', 'api.shop.svc.cluster.local'), /IN\s+A\s+10\.96\.8\.20/)
      t2.match(await run('delv', '@10.96.0.10', '-i', 'api.shop.svc.cluster.local', 'AAAA'), /negative response|ncache nxrrset|\\-AAAA|^$/m)
    })
  })
}
