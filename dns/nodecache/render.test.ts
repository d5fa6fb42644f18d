import { test } from 'tap'
import { renderRules } from './render.ts'

test('rules of a node cache', (t) => {
  t.equal(
    renderRules(['169.254.20.10', '10.96.0.10', 'fd00::a'], 53),
    `table inet switchyard-dns
delete table inet switchyard-dns
table inet switchyard-dns {
  chain SY-PREROUTING {
    type filter hook prerouting priority raw; policy accept;
    ip daddr { 169.254.20.10, 10.96.0.10 } meta l4proto { tcp, udp } th dport 53 notrack
    ip6 daddr { fd00::a } meta l4proto { tcp, udp } th dport 53 notrack
  }
  chain SY-OUTPUT {
    type filter hook output priority raw; policy accept;
    ip daddr { 169.254.20.10, 10.96.0.10 } meta l4proto { tcp, udp } th dport 53 notrack
    ip6 daddr { fd00::a } meta l4proto { tcp, udp } th dport 53 notrack
    ip saddr { 169.254.20.10, 10.96.0.10 } meta l4proto { tcp, udp } th sport 53 notrack
    ip6 saddr { fd00::a } meta l4proto { tcp, udp } th sport 53 notrack
  }
}
`,
  )
  t.end()
})
