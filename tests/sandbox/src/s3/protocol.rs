//! The S3 operations, between the crate `s3s` and the store: bodies in, conditions, answers out.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::header::IF_MATCH;
use http::{HeaderMap, StatusCode};
use s3s::crypto::{Checksum, Md5};
use s3s::dto::{
    Bucket, BucketVersioningStatus, CommonPrefix, CreateBucketInput, CreateBucketOutput,
    DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, EncodingType,
    GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object as ListedObject, PutBucketVersioningInput,
    PutBucketVersioningOutput, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tokio::io::AsyncWriteExt;

use super::list::{self, Query};
use super::request::percent_encode;
use super::server::Misbehave;
use super::store::{self, Body, BodyFile, Conditions, INLINE, Match, Object, Refusal, Store};

/// Larger objects are refused; the sandbox has the disk of a laptop.
const MAX_OBJECT: u64 = 5 * 1024 * 1024 * 1024;

/// S3 lists at most this many keys at a time, whatever the client asks for.
const MAX_KEYS: i32 = 1000;

/// How long [`Misbehave::RaceConditions`] leaves between its look and its act.
const RACE_WINDOW: Duration = Duration::from_millis(25);

/// The pieces in which files are sent.
const CHUNK: usize = 256 * 1024;

/// The store as an S3 service.
#[derive(Debug)]
pub(super) struct Protocol {
    pub(super) store: Arc<Store>,
    pub(super) misbehave: Misbehave,
}

#[async_trait::async_trait]
impl S3 for Protocol {
    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { input, headers, .. } = req;
        // First the whole body, whatever the answer will be: a client that still sends when the
        // answer comes sees a broken pipe and not the 412.
        let (body, md5) = self.receive(input.body, input.content_length).await?;
        if let Some(wanted) = &input.content_md5
            && *wanted != BASE64_STANDARD.encode(md5)
        {
            return Err(s3_error!(BadDigest));
        }
        let mut conditions = Conditions::default();
        match &input.if_none_match {
            None => {}
            Some(ETagCondition::Any) => conditions.absent = true,
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(
                    NotImplemented,
                    "If-None-Match of a PUT can only be *"
                ));
            }
        }
        conditions.matches = input.if_match.as_ref().map(wanted);

        let mut object = Object::new(body, store::etag(md5));
        object.content_type = input.content_type;
        object.metadata = input.metadata;
        let etag = object.etag.clone();
        self.publish(&input.bucket, &input.key, object, conditions, &headers)
            .await?;
        let output = PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let object = self.store.get(&input.bucket, &input.key).map_err(refused)?;
        check_read(
            &object,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let (span, content_range) = span(&object, input.range)?;
        let length = span.end - span.start;
        let output = GetObjectOutput {
            body: Some(send(&object, span)?),
            content_length: Some(length.cast_signed()),
            content_range: content_range.clone(),
            accept_ranges: Some("bytes".into()),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(object.modified)),
            content_type: object.content_type.clone(),
            metadata: object.metadata.clone(),
            ..Default::default()
        };
        Ok(partial(S3Response::new(output), content_range.is_some()))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let object = self.store.get(&input.bucket, &input.key).map_err(refused)?;
        check_read(
            &object,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let (span, content_range) = span(&object, input.range)?;
        let output = HeadObjectOutput {
            content_length: Some((span.end - span.start).cast_signed()),
            content_range: content_range.clone(),
            accept_ranges: Some("bytes".into()),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(object.modified)),
            content_type: object.content_type.clone(),
            metadata: object.metadata.clone(),
            ..Default::default()
        };
        Ok(partial(S3Response::new(output), content_range.is_some()))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let matches = match self.misbehave {
            Misbehave::IgnoreConditions | Misbehave::IgnoreIfMatch => None,
            _ => input.if_match.as_ref().map(wanted),
        };
        self.store
            .delete(&input.bucket, &input.key, matches.as_ref())
            .map_err(refused)?;
        Ok(S3Response::with_status(
            DeleteObjectOutput::default(),
            StatusCode::NO_CONTENT,
        ))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let max = usize::try_from(max_keys)
            .map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))?;
        let resume = input
            .continuation_token
            .as_deref()
            .map(read_token)
            .transpose()?;
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().filter(|d| !d.is_empty()),
            after: input.start_after.as_deref(),
            resume: resume.as_deref(),
            max,
        };
        let page = self
            .store
            .with_keys(&input.bucket, |keys| list::page(keys, &query))
            .map_err(refused)?;

        let url = input
            .encoding_type
            .as_ref()
            .is_some_and(|e| e.as_str() == EncodingType::URL);
        let encode = |text: &str| {
            if url {
                percent_encode(text)
            } else {
                text.to_owned()
            }
        };
        let contents: Vec<ListedObject> = page
            .objects
            .iter()
            .map(|(key, object)| ListedObject {
                key: Some(encode(key)),
                size: Some(object.body.len().cast_signed()),
                e_tag: Some(ETag::Strong(object.etag.clone())),
                last_modified: Some(Timestamp::from(object.modified)),
                ..Default::default()
            })
            .collect();
        let prefixes: Vec<CommonPrefix> = page
            .prefixes
            .iter()
            .map(|prefix| CommonPrefix {
                prefix: Some(encode(prefix)),
            })
            .collect();
        let count = i32::try_from(contents.len() + prefixes.len()).unwrap_or(MAX_KEYS);
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some(count),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(hex::encode),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            prefix: input.prefix.as_deref().map(encode),
            delimiter: input.delimiter.as_deref().map(encode),
            start_after: input.start_after.as_deref().map(encode),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            ..Default::default()
        }))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.versioned(&req.input.bucket).map_err(refused)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        if !self.store.create_bucket(&bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let location = Some(format!("/{bucket}"));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let prefix = req.input.prefix.unwrap_or_default();
        let mut buckets = self.store.buckets();
        buckets.retain(|(name, _)| name.starts_with(&prefix));
        let buckets = buckets.into_iter().map(|(name, created)| Bucket {
            name: Some(name),
            creation_date: Some(Timestamp::from(created)),
            ..Default::default()
        });
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            ..Default::default()
        }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        // No constraint is how S3 says us-east-1.
        self.store.versioned(&req.input.bucket).map_err(refused)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let versioned = self.store.versioned(&req.input.bucket).map_err(refused)?;
        let status =
            versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED));
        Ok(S3Response::new(GetBucketVersioningOutput {
            status,
            ..Default::default()
        }))
    }

    async fn put_bucket_versioning(
        &self,
        req: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let status = req.input.versioning_configuration.status;
        let versioned = status.is_some_and(|s| s.as_str() == BucketVersioningStatus::ENABLED);
        self.store
            .set_versioned(&req.input.bucket, versioned)
            .map_err(refused)?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }
}

impl Protocol {
    /// Hands an object to the store, with the faults of the kind of store we play.
    async fn publish(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        mut conditions: Conditions,
        headers: &HeaderMap,
    ) -> S3Result<()> {
        match self.misbehave {
            Misbehave::No => {}
            Misbehave::IgnoreConditions => conditions = Conditions::default(),
            Misbehave::IgnoreIfMatch => conditions.matches = None,
            Misbehave::RaceConditions if conditions != Conditions::default() => {
                self.store
                    .check(bucket, key, &conditions)
                    .map_err(refused)?;
                tokio::time::sleep(RACE_WINDOW).await;
                conditions = Conditions::default();
            }
            Misbehave::RaceConditions => {}
            Misbehave::IgnoreWhenVersioned => {
                if self.store.versioned(bucket).map_err(refused)? {
                    conditions.absent = false;
                    if conditions.matches.is_some() {
                        return Err(refused(Refusal::Precondition));
                    }
                }
            }
            Misbehave::WantsUnquotedETag => {
                let quoted = |value: &http::HeaderValue| value.as_bytes().starts_with(b"\"");
                if headers.get(IF_MATCH).is_some_and(quoted) {
                    return Err(refused(Refusal::Precondition));
                }
            }
        }
        self.store
            .put(bucket, key, object, &conditions)
            .map_err(refused)
    }

    /// Reads a whole body. Small ones are copied out of the connection's buffers on purpose: a
    /// slice would keep a buffer of many times its size alive for as long as the object lives.
    async fn receive(
        &self,
        blob: Option<StreamingBlob>,
        declared: Option<i64>,
    ) -> S3Result<(Body, [u8; 16])> {
        let declared = declared.and_then(|n| u64::try_from(n).ok());
        if declared.is_some_and(|n| n > MAX_OBJECT) {
            return Err(s3_error!(EntityTooLarge));
        }
        let expected = declared.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let mut memory = Vec::with_capacity(expected.min(INLINE));
        let mut md5 = Md5::new();
        if let Some(mut blob) = blob {
            while let Some(chunk) = blob.next().await {
                let chunk = chunk.map_err(broken_body)?;
                md5.update(&chunk);
                if memory.len() + chunk.len() > INLINE {
                    return self
                        .receive_file(&memory, &chunk, blob, md5, declared)
                        .await;
                }
                memory.extend_from_slice(&chunk);
            }
        }
        check_length(memory.len() as u64, declared)?;
        Ok((Body::Memory(Bytes::from(memory)), md5.finalize()))
    }

    /// Goes on with a body that has grown too large for memory.
    async fn receive_file(
        &self,
        memory: &[u8],
        chunk: &[u8],
        mut blob: StreamingBlob,
        mut md5: Md5,
        declared: Option<u64>,
    ) -> S3Result<(Body, [u8; 16])> {
        // From here on dropping `body` removes the file.
        let mut body = BodyFile {
            path: self.store.new_file(),
            len: 0,
        };
        let mut file = tokio::fs::File::create(&body.path)
            .await
            .map_err(broken_disk)?;
        file.write_all(memory).await.map_err(broken_disk)?;
        file.write_all(chunk).await.map_err(broken_disk)?;
        body.len = (memory.len() + chunk.len()) as u64;
        while let Some(chunk) = blob.next().await {
            let chunk = chunk.map_err(broken_body)?;
            md5.update(&chunk);
            body.len += chunk.len() as u64;
            if body.len > MAX_OBJECT {
                return Err(s3_error!(EntityTooLarge));
            }
            file.write_all(&chunk).await.map_err(broken_disk)?;
        }
        file.flush().await.map_err(broken_disk)?;
        check_length(body.len, declared)?;
        Ok((Body::File(body), md5.finalize()))
    }
}

fn wanted(condition: &ETagCondition) -> Match {
    match condition {
        ETagCondition::Any => Match::Any,
        ETagCondition::ETag(etag) => Match::ETag(etag.value().to_owned()),
    }
}

/// The conditions of GET and HEAD.
fn check_read(
    object: &Object,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let holds = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    };
    if if_match.is_some_and(|condition| !holds(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(holds) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

/// Which bytes are asked for, and the `Content-Range` if it is not simply all.
fn span(object: &Object, range: Option<s3s::dto::Range>) -> S3Result<(Range<u64>, Option<String>)> {
    let full = object.body.len();
    let Some(range) = range else {
        return Ok((0..full, None));
    };
    let span = range.check(full).map_err(|_| s3_error!(InvalidRange))?;
    let header = format!("bytes {}-{}/{full}", span.start, span.end - 1);
    Ok((span, Some(header)))
}

fn partial<T>(mut response: S3Response<T>, partial: bool) -> S3Response<T> {
    if partial {
        response.status = Some(StatusCode::PARTIAL_CONTENT);
    }
    response
}

fn send(object: &Object, span: Range<u64>) -> S3Result<StreamingBlob> {
    match &object.body {
        Body::Memory(bytes) => {
            // In-memory bodies are far smaller than any usize.
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let part = bytes.slice(at(span.start)..at(span.end));
            Ok(StreamingBlob::from(s3s::Body::from(part)))
        }
        Body::File(file) => {
            let file = file.open(span.start).map_err(broken_disk)?;
            let file = tokio::fs::File::from_std(file);
            let part = tokio::io::AsyncReadExt::take(file, span.end - span.start);
            let stream = tokio_util::io::ReaderStream::with_capacity(part, CHUNK);
            Ok(StreamingBlob::wrap(stream))
        }
    }
}

fn read_token(token: &str) -> S3Result<String> {
    let bytes = hex::decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one of ours"))
}

fn check_length(received: u64, declared: Option<u64>) -> S3Result<()> {
    match declared {
        Some(declared) if declared != received => Err(s3_error!(IncompleteBody)),
        _ => Ok(()),
    }
}

fn refused(refusal: Refusal) -> S3Error {
    match refusal {
        Refusal::NoBucket => s3_error!(NoSuchBucket),
        Refusal::NoKey => s3_error!(NoSuchKey),
        Refusal::Precondition => s3_error!(PreconditionFailed),
    }
}

/// The body broke off, or was not the one that was signed.
fn broken_body(source: s3s::StdError) -> S3Error {
    S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, source)
}

fn broken_disk(source: std::io::Error) -> S3Error {
    S3Error::internal_error(source)
}
