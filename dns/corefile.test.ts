import { test } from 'tap'
import { namespace, service } from '../kube/testing/builders.ts'
import { defaultCorefile } from './config.ts'
import { parseCorefile, type CorefileSources } from './corefile.ts'
import { Packer } from './packer.ts'
import { site } from './testing/site.ts'
import { printName } from './wire/name.ts'

const sources = (files: Readonly<Record<string, string>> = {}, environment: Readonly<Record<string, string>> = {}): CorefileSources => ({
  files: (pattern) =>
    Object.entries(files)
      .filter(([path]) => path === pattern || (pattern.includes('*') && path.startsWith(pattern.split('*')[0]!) && path.endsWith(pattern.split('*')[1]!)))
      .map(([path, text]) => ({ path, text })),
  environment: (name) => environment[name],
  port: 53,
})

const shape = (text: string, s = sources()): string =>
  parseCorefile(text, 'Corefile', s)
    .map(
      (b) =>
        `${b.keys.map((k) => `${k.scheme}://${printName(k.zone)}:${k.port}`).join(' ')} { ${b.lines.map((l) => [l.name, ...l.args, ...(l.block.length > 0 ? [`{ ${l.block.map((i) => [i.name, ...i.args].join(' ')).join('; ')} }`] : [])].join(' ')).join('; ')} }`,
    )
    .join('\n')

test('what a Corefile says', (t) => {
  for (const [what, text, expected, more] of [
    ['a block', '.:53 {\n errors\n cache 30\n}', 'dns://.:53 { errors; cache 30 }'],
    ['a port by default', 'example.org {\n whoami\n}', 'dns://example.org.:53 { whoami }'],
    ['several zones', 'a.org, b.org:1053\n{\n errors\n}', 'dns://a.org.:53 dns://b.org.:1053 { errors }'],
    ['zones over lines', 'a.org,\nb.org {\n errors\n}', 'dns://a.org.:53 dns://b.org.:53 { errors }'],
    ['tls', 'tls://example.org {\n errors\n}', 'dns://'.replace('dns', 'tls') + 'example.org.:853 { errors }'],
    ['a network', '10.0.0.0/8 {\n errors\n}', 'dns://10.in-addr.arpa.:53 { errors }'],
    ['a network between labels', '10.4.0.0/15 {\n errors\n}', 'dns://4.10.in-addr.arpa.:53 dns://5.10.in-addr.arpa.:53 { errors }'],
    ['an IPv6 network', 'fd00::/8 {\n errors\n}', 'dns://d.f.ip6.arpa.:53 { errors }'],
    ['comments and quotes', '. { # all\n log . "{remote} {name}" # x\n}', 'dns://.:53 { log . {remote} {name} }'],
    ['lines in braces', '. {\n forward . 1.1.1.1 {\n  policy sequential\n  max_fails 3\n }\n}', 'dns://.:53 { forward . 1.1.1.1 { policy sequential; max_fails 3 } }'],
    ['a block without braces', 'example.org\nerrors\ncache', 'dns://example.org.:53 { errors; cache }'],
    ['snippets', '(common) {\n errors\n cache {args[0]}\n}\n. {\n import common 77\n}', 'dns://.:53 { errors; cache 77 }'],
    ['imported lines', '. {\n import /x/*.override\n}', 'dns://.:53 { log; cache 9 }', sources({ '/x/a.override': 'log', '/x/b.override': 'cache 9' })],
    ['imported blocks', 'import /x/*.server\n. {\n errors\n}', 'dns://corp.:53 { forward . 10.0.0.1 }\ndns://.:53 { errors }', sources({ '/x/a.server': 'corp {\n forward . 10.0.0.1\n}\n' })],
    ['a glob that finds nothing', '. {\n import /none/*.x\n errors\n}', 'dns://.:53 { errors }'],
    ['variables', '.:{$PORT} {\n forward . {%UP%}\n}', 'dns://.:1053 { forward . 10.0.0.9 }', sources({}, { PORT: '1053', UP: '10.0.0.9' })],
  ] as const)
    t.equal(shape(text, more), expected, what)
  t.end()
})

test('what a Corefile says wrongly is named with its line', (t) => {
  for (const [text, message] of [
    ['. {\n errors', 'Corefile:2: a { is never closed'],
    ['. {\n}\n}', 'Corefile:3: unexpected }'],
    ['. {\n import nothing\n}', 'Corefile:2: import nothing: no such snippet or file'],
    ['. {\n log "x\n}', 'Corefile:2: a quote is never closed'],
    ['grpc://. {\n}', 'Corefile:1: grpc://.: grpc:// is not supported (dns:// and tls:// are)'],
    ['a..b {\n}', 'Corefile:1: a..b: not a zone'],
    ['. {\n erors\n}', 'Corefile:2: erors: no such directive, did you mean errors?'],
    ['. {\n dnstap /x\n}', 'Corefile:2: dnstap: no such directive'],
    ['. {\n kubernetes cluster.local {\n  pods maybe\n }\n}', 'Corefile:3: pods: expected disabled, insecure or verified, got "maybe"'],
    ['. {\n kubernetes cluster.local {\n  multicluster x\n }\n}', 'Corefile:3: kubernetes: multicluster is not supported'],
    ['. {\n forward . nowhere.example\n}', 'Corefile:2: forward: nowhere.example is neither an address nor a file that can be read'],
    ['. {\n cache {\n  success many\n }\n}', 'Corefile:3: success capacity: expected a number from 0 to 2147483647, got "many"'],
    ['. {\n}\n. {\n}', 'Corefile:3: . is served by another block already'],
    ['tls://. {\n}', 'Corefile:1: tls://.: tls:// needs a tls directive with certificate and key'],
    ['. {\n rewrite name regex ( x\n}', /^Corefile:2: rewrite: \( is no regular expression/],
    ['. {\n acl {\n  block net 10.0.0.300\n }\n}', 'Corefile:3: acl: 10.0.0.300 is no network'],
  ] as const)
    t.throws(() => site([], { corefile: text }), typeof message === 'string' ? { message } : { message }, text)
  t.end()
})

const objects = [namespace('default'), service('default/api', { clusterIP: '10.96.8.20' })]
const api = 'NOERROR aa\napi.default.svc.cluster.local. 5 A 10.96.8.20'

/** Corefiles of clusters as they are, each with what must be answered. `compiled`: names of the cluster have compiled answers. */
const clusters: readonly {
  readonly name: string
  readonly corefile: string
  readonly files?: Readonly<Record<string, string>>
  readonly compiled: boolean
  readonly asks: readonly (readonly [name: string, type: string, answer: string | RegExp])[]
}[] = [
  {
    name: 'our own',
    corefile: defaultCorefile,
    compiled: true,
    asks: [
      ['api.default.svc.cluster.local', 'A', api],
      ['1-2-3-4.default.pod.cluster.local', 'A', /1\.2\.3\.4/],
    ],
  },
  {
    name: 'kubeadm',
    compiled: true,
    corefile: `.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}`,
    asks: [
      ['api.default.svc.cluster.local', 'A', api.replace('5 A', '30 A')],
      ['example.com', 'A', 'SERVFAIL'],
    ],
  },
  {
    name: 'k3s',
    compiled: true,
    files: {
      '/etc/coredns/NodeHosts': '192.168.1.5 server1\n192.168.1.6 agent1 agent1.lan\n',
      '/etc/coredns/custom/x.override': 'log {\n class error\n}\n'.replace(/log[^]*/, ''),
      '/etc/coredns/custom/y.server': 'corp.example:53 {\n errors\n forward . 10.1.2.3\n}\n',
    },
    corefile: `.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    hosts /etc/coredns/NodeHosts {
      ttl 60
      reload 15s
      fallthrough
    }
    prometheus :9153
    cache 30
    loop
    reload
    loadbalance
    import /etc/coredns/custom/*.override
    forward . /etc/resolv.conf
}
import /etc/coredns/custom/*.server`,
    asks: [
      ['api.default.svc.cluster.local', 'A', api],
      ['server1', 'A', 'NOERROR aa\nserver1. 60 A 192.168.1.5'],
      ['agent1.lan', 'A', 'NOERROR aa\nagent1.lan. 60 A 192.168.1.6'],
      ['agent1', 'AAAA', 'NOERROR aa'],
      ['6.1.168.192.in-addr.arpa', 'PTR', 'NOERROR aa\n6.1.168.192.in-addr.arpa. 60 PTR agent1.\n6.1.168.192.in-addr.arpa. 60 PTR agent1.lan.'],
    ],
  },
  {
    name: 'EKS',
    compiled: true,
    corefile: `.:53 {
    errors
    health {
        lameduck 5s
      }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}`,
    asks: [['api.default.svc.cluster.local', 'A', api]],
  },
  {
    name: 'stub domains',
    compiled: true,
    corefile: `acme.local:53 {
    errors
    cache 30
    forward . 1.2.3.4 {
        force_tcp
        prefer_udp
    }
}
.:53 {
    errors
    health
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods verified
        fallthrough in-addr.arpa ip6.arpa
    }
    autopath @kubernetes
    prometheus :9153
    forward . 8.8.8.8 8.8.4.4 {
        policy round_robin
    }
    cache 30
    loop
    reload 10s
    loadbalance round_robin
}`,
    asks: [['api.default.svc.cluster.local', 'A', api]],
  },
  {
    name: 'NodeLocal',
    compiled: false,
    corefile: `cluster.local:53 {
    errors
    cache {
            success 9984 30
            denial 9984 5
    }
    reload
    loop
    bind 127.0.0.1
    forward . 10.96.0.11 {
            force_tcp
    }
    prometheus :9253
    health 127.0.0.1:8080
}
in-addr.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind 127.0.0.1
    forward . 10.96.0.11 {
            force_tcp
    }
    prometheus :9253
}
.:53 {
    errors
    cache 30
    reload
    loop
    bind 127.0.0.1
    forward . /etc/resolv.conf
    prometheus :9253
}`,
    asks: [],
  },
]

test('Corefiles of clusters as they are', async (t) => {
  for (const c of clusters) {
    const s = site(objects, { corefile: c.corefile, files: c.files ?? {} })
    for (const [name, type, answer] of c.asks) {
      const got = await s.ask(name, type)
      if (typeof answer === 'string') t.equal(got, answer, `${c.name}: ${name} ${type}`)
      else t.match(got, answer, `${c.name}: ${name} ${type}`)
    }
    t.equal(Packer.of(s.server.sites, { bytes: 4_000_000 }) !== undefined, c.compiled, `${c.name}: compiled`)
    s.configuration.close()
  }
})

const kubernetes = 'kubernetes cluster.local in-addr.arpa {\n fallthrough\n }'

test('handlers change and refuse answers', async (t) => {
  const cases: readonly (readonly [lines: string, name: string, type: string, answer: string, client?: string])[] = [
    ['rewrite name www.example.org api.default.svc.cluster.local', 'www.example.org', 'A', 'NOERROR aa\nwww.example.org. 5 A 10.96.8.20'],
    ['rewrite name exact www.example.org api.default.svc.cluster.local', 'WWW.example.org', 'A', 'NOERROR aa\nWWW.example.org. 5 A 10.96.8.20'],
    ['rewrite name suffix .example.org .default.svc.cluster.local', 'api.example.org', 'A', 'NOERROR aa\napi.example.org. 5 A 10.96.8.20'],
    ['rewrite name regex (.*)\\.prod\\.example\\.org {1}.default.svc.cluster.local', 'api.prod.example.org', 'A', 'NOERROR aa\napi.prod.example.org. 5 A 10.96.8.20'],
    ['rewrite name prefix new- "" answer auto\nrewrite name prefix x y', 'new-api.default.svc.cluster.local', 'A', 'NOERROR aa\nnew-api.default.svc.cluster.local. 5 A 10.96.8.20'],
    ['rewrite name substring .staging. .default.', 'api.staging.svc.cluster.local', 'A', 'NOERROR aa\napi.staging.svc.cluster.local. 5 A 10.96.8.20'],
    ['rewrite type ANY HINFO', 'api.default.svc.cluster.local', 'A', api],
    ['rewrite continue name a.example b.example\nrewrite name b.example api.default.svc.cluster.local', 'a.example', 'A', 'NOERROR aa\na.example. 5 A 10.96.8.20'],
    ['acl {\n block net 10.244.0.0/16\n }', 'api.default.svc.cluster.local', 'A', 'REFUSED'],
    ['acl {\n allow net 10.244.1.9\n block net *\n }', 'api.default.svc.cluster.local', 'A', api],
    ['acl {\n filter type AAAA\n }', 'api.default.svc.cluster.local', 'AAAA', 'NOERROR'],
    ['acl {\n drop type A\n }', 'api.default.svc.cluster.local', 'A', 'dropped'],
    ['acl example.org {\n block net *\n }', 'api.default.svc.cluster.local', 'A', api],
    ['acl {\n block net *\n }\nrewrite name www.example.org api.default.svc.cluster.local', 'www.example.org', 'A', 'REFUSED'],
    ['hosts {\n 10.0.0.5 api.default.svc.cluster.local\n fallthrough\n }', 'api.default.svc.cluster.local', 'A', 'NOERROR aa\napi.default.svc.cluster.local. 3600 A 10.0.0.5'],
    ['hosts {\n 10.0.0.5 x.example\n }', 'api.default.svc.cluster.local', 'A', 'NXDOMAIN aa'],
    ['log', 'api.default.svc.cluster.local', 'A', api],
    ['bufsize 512', 'api.default.svc.cluster.local', 'A', api],
  ]
  for (const [lines, name, type, answer] of cases) {
    const s = site(objects, { corefile: `.:53 {\n${lines}\n${kubernetes}\n}` })
    t.equal(await s.ask(name, type, { brief: true }), answer, `${lines}: ${name} ${type}`)
    s.configuration.close()
  }
})

test('names that a hosts file or a rewrite touches have no compiled answer, all others do', (t) => {
  const s = site(objects, {
    corefile: `.:53 {\n hosts {\n 10.0.0.5 api.default.svc.cluster.local new.default.svc.cluster.local\n fallthrough\n }\n rewrite name old.default.svc.cluster.local api.default.svc.cluster.local\n kubernetes cluster.local\n}`,
  })
  const packer = Packer.of(s.server.sites, { bytes: 4_000_000 })!
  const resolver = packer.resolver()
  for (const [name, compiled] of [
    ['\x03api\x07default\x03svc\x07cluster\x05local\0', false],
    ['\x03new\x07default\x03svc\x07cluster\x05local\0', false],
    ['\x03old\x07default\x03svc\x07cluster\x05local\0', false],
    ['\x05other\x07default\x03svc\x07cluster\x05local\0', true],
  ] as const) {
    const b = Buffer.alloc(600)
    b[5] = 1
    const end = 12 + b.write(`${name}\0\x01\0\x01`, 12, 'latin1')
    t.equal(resolver.resolve(b, 0, end, 600) > 0, compiled, name)
  }
  s.configuration.close()
  t.end()
})
