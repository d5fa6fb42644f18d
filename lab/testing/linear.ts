/** A Service as kube-proxy's list names it. */
export interface Listed {
  readonly name: string
  readonly address: string
  readonly port: number
  readonly endpoints: readonly { readonly address: string; readonly port: number }[]
}

/**
 * The shape that kube-proxy gives its NAT table, as `iptables-restore` text: one list with a rule a Service, held against every new connection from the top, then a chain
 * a Service that draws an endpoint, and a chain an endpoint. Only to be measured; nothing of ours forwards like this.
 */
export function linearList(services: readonly Listed[]): string {
  const out = ['*nat', ':KUBE-SERVICES - [0:0]', ':KUBE-MARK-MASQ - [0:0]', ':KUBE-POSTROUTING - [0:0]']
  services.forEach((s, i) => out.push(`:KUBE-SVC-${i} - [0:0]`, ...s.endpoints.map((_, k) => `:KUBE-SEP-${i}-${k} - [0:0]`)))
  out.push(
    '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000',
    '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
  )
  services.forEach((s, i) => {
    out.push(
      `-A KUBE-SERVICES -d ${s.address}/32 -p tcp -m comment --comment "${s.name} cluster IP" -m tcp --dport ${s.port} -j KUBE-SVC-${i}`,
      `-A KUBE-SVC-${i} ! -s 10.244.0.0/16 -d ${s.address}/32 -p tcp -m tcp --dport ${s.port} -j KUBE-MARK-MASQ`,
    )
    s.endpoints.forEach((e, k) => {
      const left = s.endpoints.length - k
      out.push(
        `-A KUBE-SVC-${i} ${left === 1 ? '' : `-m statistic --mode random --probability ${(1 / left).toFixed(8)} `}-j KUBE-SEP-${i}-${k}`,
        `-A KUBE-SEP-${i}-${k} -s ${e.address}/32 -j KUBE-MARK-MASQ`,
        `-A KUBE-SEP-${i}-${k} -p tcp -m tcp -j DNAT --to-destination ${e.address}:${e.port}`,
      )
    })
  })
  return `${out.join('\n')}\nCOMMIT\n`
}
