// The old application's statements, through its own driver.
//   application.js answers   runs them all, and prints what they answer
//   application.js write     inserts until its input ends, and prints ids and errors
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 2 });
const DIMS = 1536;

const unit = (axis) =>
  JSON.stringify(Array.from({ length: DIMS }, (_, at) => (at === axis ? 1 : 0.001 * ((at + axis) % 7))));

async function exists(table) {
  const found = await pool.query(
    "SELECT EXISTS (SELECT FROM information_schema.tables WHERE table_name = $1)", [table]);
  return found.rows[0].exists;
}

async function add(table, content, axis, metadata) {
  const cast = table === "embeddings" ? "jsonb" : "vector";
  const done = await pool.query(
    `INSERT INTO ${table} (content, embedding, metadata) VALUES ($1, $2::${cast}, $3::jsonb) RETURNING id`,
    [content, unit(axis), JSON.stringify(metadata)]);
  return done.rows[0].id;
}

async function search(table, axis, limit) {
  const column = table === "embeddings" ? "embedding_vector" : "embedding";
  const found = await pool.query(
    `SELECT content, metadata, 1 - (${column} <=> $1::vector) AS similarity FROM ${table}
     ORDER BY similarity DESC LIMIT $2`, [unit(axis), limit]);
  return found.rows;
}

async function count(table) {
  return Number((await pool.query(`SELECT COUNT(*) FROM ${table}`)).rows[0].count);
}

async function answers() {
  const seen = {};
  for (const table of ["embeddings", "code_vectors"]) {
    const before = await count(table);
    const ids = [];
    for (let n = 0; n < 4; n++) ids.push(await add(table, `node ${n}`, n * 10, { n, tags: ["a", "b"] }));
    const row = await pool.query(`SELECT * FROM ${table} WHERE id = $1`, [ids[1]]);
    const updated = await pool.query(
      `UPDATE ${table} SET content = $1, metadata = $2::jsonb WHERE id = $3`, ["changed", "{}", ids[2]]);
    const deleted = await pool.query(`DELETE FROM ${table} WHERE id = $1 RETURNING content`, [ids[3]]);
    seen[table] = {
      exists: await exists(table),
      columns: Object.keys(row.rows[0]),
      types: row.fields.map((field) => field.dataTypeID < 16384 ? field.dataTypeID : "vector"),
      metadata: row.rows[0].metadata,
      embedding: row.rows[0].embedding,
      dated: row.rows[0].created_at instanceof Date,
      updated: updated.rowCount,
      deleted: deleted.rows,
      more: (await count(table)) - before,
      found: await search(table, 10, 3),
    };
    const called = table === "embeddings"
      ? await pool.query("SELECT * FROM search_embeddings($1::vector, $2, $3::jsonb)", [unit(10), 1, '{"n": 1}'])
      : await pool.query("SELECT * FROM match_documents($1::vector, $2, $3)", [unit(10), 0.5, 1]);
    seen[table].called = called.rows.map((hit) => [Object.keys(hit), hit.content, hit.metadata]);
    await pool.query(`DELETE FROM ${table} WHERE id = ANY ($1)`, [ids]);
    seen[table].less = (await count(table)) - before;
  }
  return seen;
}

async function write() {
  let going = true;
  process.stdin.on("end", () => { going = false; }).resume();
  const ids = { embeddings: [], code_vectors: [] }, errors = [];
  let longest = 0;
  process.stderr.write("writing\n");
  for (let n = 0; going; n++) {
    for (const table of Object.keys(ids)) {
      const began = performance.now();
      try {
        ids[table].push(await add(table, `during ${n}`, 200 + (n % 100), { during: n }));
        await search(table, 200 + (n % 100), 2);
      } catch (error) {
        errors.push(String(error));
      }
      longest = Math.max(longest, performance.now() - began);
    }
  }
  return { ids, errors, longest };
}

const result = await { answers, write }[process.argv[2]]();
await pool.end();
process.stdout.write(JSON.stringify(result));
