/** The table that keeps questions to a node's own cache out of connection tracking. */
export const table = 'switchyard-dns'

/** A script for `nft -f` after which exactly these addresses and this port are not tracked: neither what comes to them nor what they answer, on the way in and on the way out of this node. */
export function renderRules(addresses: readonly string[], port: number): string {
  const rules = (direction: 'daddr' | 'saddr', portOf: 'dport' | 'sport'): string[] =>
    (['ip', 'ip6'] as const).flatMap((family) => {
      const own = addresses.filter((a) => a.includes(':') === (family === 'ip6'))
      if (own.length === 0) return []
      return [`    ${family} ${direction} { ${own.join(', ')} } meta l4proto { tcp, udp } th ${portOf} ${port} notrack`]
    })
  return [
    // Made before it is deleted, so that deleting never fails.
    `table inet ${table}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    '  chain SY-PREROUTING {',
    '    type filter hook prerouting priority raw; policy accept;',
    ...rules('daddr', 'dport'),
    '  }',
    '  chain SY-OUTPUT {',
    '    type filter hook output priority raw; policy accept;',
    // Processes of this node ask by way of output too.
    ...rules('daddr', 'dport'),
    ...rules('saddr', 'sport'),
    '  }',
    '}',
    '',
  ].join('\n')
}

/** Removes the table; fine when there is none. */
export const removeRules = `table inet ${table}\ndelete table inet ${table}\n`
