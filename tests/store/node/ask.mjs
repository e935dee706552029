// What a user of @clickhouse/client does, against the store at argv[2]; what came of it goes to stdout as JSON.
import { createClient, ClickHouseError } from '@clickhouse/client'
import { Readable } from 'node:stream'

const [url, password, table] = process.argv.slice(2)
const writer = createClient({ url, database: 'k2' })
const reader = createClient({ url, database: 'k2', username: 'reader', password })
const told = {}

async function refused(act) {
  try {
    await act()
    return 'nothing was refused'
  } catch (error) {
    return error instanceof ClickHouseError ? { code: error.code, type: error.type } : String(error)
  }
}

const rows = async (query, more = {}) =>
  (await writer.query({ query, format: 'JSONEachRow', ...more })).json()

told.ping = await writer.ping()

told.select = await (await writer.query({ query: 'SELECT number AS n, toString(number) AS t FROM numbers(3)' })).json()

told.params = await rows(
  `SELECT {text:String} AS text, {ids:Array(UInt32)} AS ids, {price:Decimal(38, 18)} AS price, {at:DateTime64(3)} AS at,
          {none:Nullable(String)} AS none`,
  { query_params: { text: "it's\ta\\b\n'", ids: [1, 2], price: '1.5', at: new Date('2026-01-02T03:04:05.678Z'), none: null } },
)

await writer.command({
  query: `CREATE TABLE ${table} (id UInt32, symbol LowCardinality(String), price Decimal(38, 18), tags Array(String))
          ENGINE = MergeTree ORDER BY id`,
})
told.insert = (
  await writer.insert({
    table,
    format: 'JSONEachRow',
    values: [
      { id: 1, symbol: 'BTC-USD', price: '105944.200000000000000001', tags: ['a', "b'"] },
      { id: 2, symbol: 'ETH-USD', price: '0.1', tags: [] },
    ],
  })
).executed
await writer.insert({
  table,
  format: 'CSV',
  values: Readable.from(['3,BTC-USD,1.25,"[\'x\']"\n', '4,BTC-USD,2.5,"[]"\n'], { objectMode: false }),
})
await writer.insert({
  table,
  format: 'JSONEachRow',
  columns: ['id', 'symbol'],
  values: Readable.from(
    (function* () {
      for (let id = 5; id <= 20_004; id++) yield { id, symbol: 'MANY' }
    })(),
  ),
})
told.inserted = await rows(`SELECT id, symbol, toString(price) AS price, tags FROM ${table} WHERE id < 5 ORDER BY id`)
told.counted = await rows(`SELECT count() AS n, sum(id) AS ids FROM ${table}`)

const stream = (await writer.query({ query: 'SELECT number FROM numbers(100000)', format: 'JSONCompactEachRow' })).stream()
told.streamed = { rows: 0, sum: 0, chunks: 0 }
for await (const chunk of stream) {
  told.streamed.chunks += 1
  for (const row of chunk) {
    told.streamed.rows += 1
    told.streamed.sum += Number(row.json()[0])
  }
}

told.raw = await new Promise((resolve, reject) => {
  writer.exec({ query: 'SELECT 1, 2 FORMAT CSV' }).then(({ stream }) => {
    let text = ''
    stream.on('data', (data) => (text += data))
    stream.on('end', () => resolve(text))
    stream.on('error', reject)
  }, reject)
})

const packed = createClient({ url, database: 'k2', compression: { request: true, response: true } })
await packed.insert({ table, format: 'JSONEachRow', values: [{ id: 30_000, symbol: 'PACKED' }] })
told.packed = await (await packed.query({ query: `SELECT id FROM ${table} WHERE symbol = 'PACKED'`, format: 'JSON' })).json()

const session = createClient({ url, session_id: 'node', max_open_connections: 1 })
await session.command({ query: 'CREATE TEMPORARY TABLE kept (n UInt8) ENGINE = Memory' })
await session.insert({ table: 'kept', format: 'JSONEachRow', values: [{ n: 7 }] })
told.session = await (await session.query({ query: 'SELECT n FROM kept', format: 'JSONEachRow' })).json()

told.settings = await rows('SELECT 18446744073709551615 AS wide', {
  clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
})
told.summary = Number((await writer.insert({ table, format: 'JSONEachRow', values: [{ id: 40_000 }] })).summary?.written_rows)

told.wrong = await refused(() => writer.query({ query: 'SELECT foo' }))
told.late = await refused(async () => {
  const result = await writer.query({ query: 'SELECT throwIf(number = 200000) FROM numbers(300000)', format: 'JSONEachRow' })
  for await (const chunk of result.stream()) chunk.length
})
told.reads = await (await reader.query({ query: 'SELECT count() AS n FROM silver_trades', format: 'JSONEachRow' })).json()
told.writes = await refused(() => reader.insert({ table, values: [{ id: 1 }], format: 'JSONEachRow' }))
told.password = await refused(() => createClient({ url, username: 'reader', password: 'wrong' }).query({ query: 'SELECT 1' }))

const stop = new AbortController()
setTimeout(() => stop.abort(), 200)
told.aborted = await writer
  .query({ query: 'SELECT sleepEachRow(1) FROM numbers(20)', abort_signal: stop.signal, clickhouse_settings: { max_block_size: '1' } })
  .then((result) => result.text(), (error) => error)
  .then((value) => (value instanceof Error ? 'aborted' : 'answered'))

for (const client of [writer, reader, packed, session]) await client.close()
process.stdout.write(JSON.stringify(told))
