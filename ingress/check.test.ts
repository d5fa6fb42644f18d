import { join } from 'node:path'
import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { ingress, secret, service } from '../kube/testing/builders.ts'
import type { Flag } from '../lib/options.ts'
import { report } from './check.ts'
import { keys } from './annotations/list.ts'
import { configKeys, readConfig } from './config.ts'
import { flags, groupsOf, trustsOf, type IngressValues } from './options.ts'

const nginx = 'nginx.ingress.kubernetes.io/'

void test('the report says of every annotation what becomes of it', async (t) => {
  const i = ingress(
    'shop/web',
    { 'x.test': { '/': 'a:80' } },
    {
      class: 'nginx',
      annotations: {
        [`${nginx}proxy-body-size`]: '8m',
        [`${nginx}proxy-buffering`]: 'on',
        [`${nginx}use-regex`]: 'true',
        [`${nginx}configuration-snippet`]: 'x',
        [`${nginx}ssl-redirct`]: 'true',
        'cert-manager.io/cluster-issuer': 'le',
      },
    },
  )
  const [r] = report([{ object: i, source: 'a.yaml' }])
  t.equal(r!.verdict, 'not as it is')
  t.same(
    r!.annotations.map((a) => `${a.support} ${a.key.replace(nginx, '')}`),
    ['supported proxy-body-size', 'no effect proxy-buffering', 'differs use-regex', 'refused configuration-snippet', 'unknown ssl-redirct', 'not ours cert-manager.io/cluster-issuer'],
  )
  t.match(r!.annotations.find((a) => a.support === 'unknown')!.note, /did you mean ssl-redirect/)
})

void test('Services and Secrets are missed only where some are given', async (t) => {
  const i = ingress('web', { 'x.test': { '/': 'a:80' } }, { class: 'c', tls: { gone: ['x.test'] } })
  t.equal(report([{ object: i, source: 'f' }])[0]!.verdict, 'as it is')
  const all = [i, service('b'), secret('s', {})].map((object) => ({ object, source: 'f' }))
  t.same(report(all)[0]!.problems, ['rule 0, path 0: Service default/a does not exist', 'tls 0: Secret default/gone does not exist'])
  t.equal(report([{ object: ingress('none', { 'bad host': { '/': 'a:80' } }), source: 'f' }])[0]!.verdict, 'not as it is')
})

const base = { http: ':80', https: ':443', class: [], 'publish-address': [], trusted: [] } as unknown as IngressValues

void test('classes with addresses of their own are groups of their own', async (t) => {
  const short = (v: Partial<IngressValues>): unknown => groupsOf({ ...base, ...v } as IngressValues).map((g) => [g.classes.join('+'), g.otherClasses.join('+'), g.http, g.https])
  t.same(short({}), [['', '', { host: '', port: 80 }, { host: '', port: 443 }]])
  t.same(short({ class: ['public', 'admin=10.0.0.1:80', '10.0.0.1:443'] }), [
    ['public', 'admin', { host: '', port: 80 }, { host: '', port: 443 }],
    ['admin', '', { host: '10.0.0.1', port: 80 }, { host: '10.0.0.1', port: 443 }],
  ])
  t.same(short({ class: ['admin=:81'] }), [['admin', '', { host: '', port: 81 }, undefined]])
  t.same(short({ 'http-port': 8080, https: '' }), [['', '', { host: '', port: 8080 }, undefined]])
  t.throws(() => short({ http: '', https: '' }), /neither --http nor --https/)
})

void test('a ConfigMap of ingress-nginx gives defaults; what is not followed is named', async (t) => {
  const read = readConfig({ 'proxy-body-size': '9m', 'use-forwarded-headers': 'true', 'proxy-real-ip-cidr': '10.0.0.0/8', 'server-tokens': 'false', nonsense: '1' })
  t.same([...read.defaults], [['proxy-body-size', '9m']])
  t.same(read.trusted, ['10.0.0.0/8'])
  t.same(read.problems, ['key server-tokens has no effect: the version is never told', 'unknown key nonsense'])
  t.equal(trustsOf(['10.0.0.0/8'])!('10.1.2.3'), true)
  t.equal(trustsOf(['10.0.0.0/8'])!('11.1.2.3'), false)
})

void test('docs/ingress.md names every annotation, every key of the ConfigMap and every flag', async (t) => {
  const text = readFileSync(join(import.meta.dirname, '../docs/ingress.md'), 'utf8')
  for (const key of keys.keys()) if (!text.includes(`\`${key}\``)) t.fail(`annotation ${key}`)
  for (const key of Object.keys(configKeys)) if (!text.includes(`\`${key}\``)) t.fail(`key ${key}`)
  for (const [name, flag] of Object.entries(flags)) if ((flag as Flag).hidden !== true && !text.includes(`--${name}`)) t.fail(`flag --${name}`)
  t.ok(keys.size > 100)
})
