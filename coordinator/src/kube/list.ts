import { type KubeClient, type KubeObject, type KubeResult, malformed } from "./client.ts";

/** Which objects: `/api/v1/pods`, `/apis/criu.org/v1/checkpointrestoreoperators` … */
export interface Collection {
  path: string;
  labelSelector?: string;
  fieldSelector?: string;
  /** Asks for metadata alone, which costs the API server, the wire and the reader a fraction. */
  metadataOnly: boolean;
}

export interface ObjectList<T> {
  items: T[];
  /** Where a watch carries on. */
  resourceVersion: string;
}

interface Page {
  kind?: unknown;
  items?: unknown;
  metadata?: { resourceVersion?: unknown; continue?: unknown };
}

const PAGE_SIZE = 500;

/**
 * Lists a whole collection as it is now (a consistent read: no resourceVersion), in chunks, keeping of each object only
 * what `project` makes of it. Either every chunk came and is what it says it is, or the whole is a failure: half a list
 * would make what it lacks look absent.
 */
export async function listObjects<T>(
  client: KubeClient,
  collection: Collection,
  { project, signal, timeoutMs }: { project: (object: KubeObject) => T; signal?: AbortSignal; timeoutMs?: number },
): Promise<KubeResult<ObjectList<T>>> {
  const items: T[] = [];
  let next: string | undefined;
  for (;;) {
    const request = {
      path: collection.path,
      query: {
        labelSelector: collection.labelSelector,
        fieldSelector: collection.fieldSelector,
        limit: PAGE_SIZE,
        continue: next,
      },
      accept: acceptOf(collection, "PartialObjectMetadataList"),
      ...(signal === undefined ? {} : { signal }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    };
    const answer = await client.request<Page>(request);
    if (!answer.ok) return answer;
    const page = answer.value;
    // Go writes an empty list of metadata as null.
    const pageItems: unknown = page.items === null ? [] : page.items;
    if (typeof page.kind !== "string" || !page.kind.endsWith("List") || !Array.isArray(pageItems)) {
      return malformed(request, `the answer is a ${JSON.stringify(page.kind)}, not a list`);
    }
    if (collection.metadataOnly && page.kind !== "PartialObjectMetadataList") {
      return malformed(request, `the answer is a ${page.kind}, not metadata alone`);
    }
    for (const item of pageItems as unknown[]) {
      if (!isObject(item)) return malformed(request, "an item of the list has no name, uid or resourceVersion");
      items.push(project(item));
    }
    const { resourceVersion, continue: token } = page.metadata ?? {};
    if (typeof resourceVersion !== "string" || resourceVersion === "") {
      return malformed(request, "the list has no resourceVersion");
    }
    if (token === undefined || token === "") return { ok: true, value: { items, resourceVersion } };
    if (typeof token !== "string" || token === next)
      return malformed(request, "the list's continue token makes no sense");
    next = token;
  }
}

/** The Accept header of a collection's list or watch. */
export function acceptOf(
  { metadataOnly }: Pick<Collection, "metadataOnly">,
  kind: "PartialObjectMetadata" | "PartialObjectMetadataList",
): string {
  return metadataOnly ? `application/json;as=${kind};g=meta.k8s.io;v=v1` : "application/json";
}

/** Whether a value has what tells an object apart. */
export function isObject(value: unknown): value is KubeObject {
  const metadata = (value as Partial<KubeObject> | null)?.metadata;
  return [metadata?.name, metadata?.uid, metadata?.resourceVersion].every(
    (text) => typeof text === "string" && text !== "",
  );
}
