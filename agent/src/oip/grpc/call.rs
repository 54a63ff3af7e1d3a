//! One call of gRPC: its message as it comes, framed and perhaps compressed, and its answer or status.
//!
//! **Invariant:** a message is in memory only with room taken for it, and is decompressed away from the
//! reactor.

use std::marker::PhantomData;

use axum::body::Body;
use axum::http::{self, HeaderMap, HeaderValue};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};

use super::Reply;
use crate::api::body::{self, Limit, Place};
use crate::api::{Api, unread};
use crate::oip::SMALL_BODY;
use crate::oip::compression::{self, Encoding, Unread};
use crate::oip::messages::{self, Message};
use crate::oip::refusal::{Kind, Refusal};
use crate::oip::work::{self, off_reactor};

/// Before each message: whether it is compressed, and its length in four bytes.
const FRAME: usize = 5;

/// Reads the one message of a call, and lets tonic answer with what `call` makes of it.
pub(super) async fn unary<M, F, R>(api: &Api, request: http::Request<Incoming>, call: F) -> Reply
where
    M: Message + Send + 'static,
    F: FnOnce(Bytes) -> R + Send,
    R: Future<Output = Result<M, Refusal>> + Send,
{
    let (mut parts, body) = request.into_parts();
    let is_infer = parts.uri.path().ends_with("/ModelInfer");
    let read = framed(api, &parts.headers, Body::new(body), is_infer).await;
    let (framed, _room, _place) = match read {
        Ok(read) => read,
        Err(refusal) => return status(&refusal).into_http(),
    };
    parts.headers.remove("grpc-encoding");
    let call = |bytes| async move { call(bytes).await.map(Response::new).map_err(|r| status(&r)) };
    let request = http::Request::from_parts(parts, Full::new(framed));
    Grpc::new(Plain::<M>(PhantomData))
        // What is too large was refused before.
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
        .unary(Once(Some(call)), request)
        .await
}

/// The body of a call as it was sent, decompressed, with the room that it takes.
async fn framed<'a>(
    api: &'a Api,
    headers: &HeaderMap,
    body: Body,
    is_infer: bool,
) -> Result<(Bytes, Place, tokio::sync::SemaphorePermit<'a>), Refusal> {
    let admitted = encoding_of(headers).and_then(|encoding| Ok((encoding, api.place()?)));
    let (encoding, place) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            unread::discard(body).await;
            return Err(refusal);
        }
    };
    let busy_s = api.retry_after_s();
    let (limit, message) = match is_infer {
        true => (Limit::Configured { frame: FRAME }, api.config.max_body_bytes),
        false => (Limit::Call(SMALL_BODY + FRAME), SMALL_BODY),
    };
    let (bytes, mut taken) =
        body::read(&api.room, &api.config, limit, headers, body, busy_s).await?;
    let is_compressed = match bytes.first() {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Refusal::bad("the call has no message, or one with an unknown flag")),
    };
    if !is_compressed {
        return Ok((bytes, taken, place));
    }
    let Some(encoding) = encoding else {
        return Err(Refusal::bad("the message is compressed, and grpc-encoding does not say how"));
    };
    let room = api.room.clone();
    // What is in it nobody knows before.
    let (out, taken) = off_reactor(usize::MAX, move || {
        let more = |bytes| room.try_take(bytes, &mut taken);
        Ok((expanded(&bytes, encoding, message, more, busy_s)?, taken))
    })
    .await?;
    Ok((out, taken, place))
}

fn encoding_of(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
    let text = headers.get("grpc-encoding").map_or(Ok(""), HeaderValue::to_str);
    let encoding = text.map_err(|_| ()).and_then(Encoding::of_content);
    encoding.map_err(|()| {
        let what = "this grpc-encoding is not read here; send identity, gzip or deflate";
        Refusal::new(Kind::Encoding, what)
    })
}

/// One compressed message with its frame, as a plain one.
fn expanded(
    bytes: &[u8],
    encoding: Encoding,
    limit: usize,
    room: impl FnMut(usize) -> bool,
    busy_s: u64,
) -> Result<Bytes, Refusal> {
    let (frame, body) = bytes.split_at_checked(FRAME).unwrap_or((bytes, &[]));
    let length = frame.get(1..FRAME).and_then(|length| length.try_into().ok());
    let length = length.map(u32::from_be_bytes).and_then(|length| usize::try_from(length).ok());
    if length != Some(body.len()) {
        return Err(Refusal::bad("the message is not as long as it says"));
    }
    let out = compression::expand(body, encoding, limit, room).map_err(|why| match why {
        Unread::Damaged => Refusal::bad("the message is not compressed as grpc-encoding says"),
        Unread::TooLarge => Refusal::new(
            Kind::TooLarge,
            format!("more than the {limit} bytes that are allowed come out of the message"),
        ),
        Unread::NoRoom => work::no_room(busy_s),
    })?;
    let mut plain = BytesMut::with_capacity(FRAME + out.len());
    plain.put_u8(0);
    plain.put_u32(u32::try_from(out.len()).unwrap_or(u32::MAX));
    plain.put_slice(&out);
    Ok(plain.freeze())
}

/// gRPC's status of a refusal.
pub(super) fn status(refusal: &Refusal) -> Status {
    let code = match refusal.kind {
        Kind::Bad => Code::InvalidArgument,
        Kind::Unknown => Code::NotFound,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::TooLarge | Kind::TooFast => Code::ResourceExhausted,
        Kind::Encoding | Kind::NotOffered => Code::Unimplemented,
        Kind::Busy => Code::Unavailable,
        Kind::Slow | Kind::Late => Code::DeadlineExceeded,
        Kind::Failed => Code::Internal,
    };
    let mut status = Status::new(code, refusal.message.clone());
    if let Some(seconds) = refusal.retry_after_s {
        status.metadata_mut().insert("retry-after", seconds.into());
    }
    status
}

/// A call that is made once.
struct Once<F>(Option<F>);

impl<F, R, M> UnaryService<Bytes> for Once<F>
where
    F: FnOnce(Bytes) -> R,
    R: Future<Output = Result<Response<M>, Status>>,
{
    type Response = M;
    type Future = Either<R, std::future::Ready<R::Output>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        match self.0.take() {
            Some(call) => call(request.into_inner()).left_future(),
            None => std::future::ready(Err(Status::internal("called twice"))).right_future(),
        }
    }
}

/// Answers as messages; questions as the bytes of one, to be read elsewhere.
struct Plain<M>(PhantomData<fn() -> M>);

impl<M: Message + Send + 'static> Codec for Plain<M> {
    type Encode = M;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<M: Message> Encoder for Plain<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        messages::write(&message, to).map_err(Status::internal)
    }
}

impl<M> Decoder for Plain<M> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_message_becomes_a_plain_one() {
        let body = compression::shrink(b"message", Encoding::Gzip).unwrap();
        let mut framed = vec![1];
        framed.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&body);
        let plain = expanded(&framed, Encoding::Gzip, 99, |_| true, 1).unwrap();
        assert_eq!(&plain[..], b"\0\0\0\0\x07message");
        for (case, bytes, limit, status) in [
            ("cut", &framed[..framed.len() - 1], 99, 400),
            ("no frame", &framed[..3], 99, 400),
            ("too large", &framed[..], 6, 413),
        ] {
            let refusal = expanded(bytes, Encoding::Gzip, limit, |_| true, 1).unwrap_err();
            assert_eq!(refusal.kind.http(), status, "{case}: {refusal:?}");
        }
    }
}
