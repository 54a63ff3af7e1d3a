//! Owns the half of the link that polls one connection, subscribes on it, and counts its bytes.
//!
//! **Invariant:** it waits for nobody but the broker: what finds no room is dropped.

use rumqttc::{
    AsyncClient, Event as MqttEvent, EventLoop, Outgoing, Packet, Publish, QoS, SubscribeFilter,
};
use tokio::sync::mpsc;

use super::size;
use crate::network::Tap;

/// What the polling half tells the other.
pub(super) enum Heard {
    /// The broker has taken the subscription.
    Subscribed,
    /// Something was published, by whomever.
    Message(Publish),
    /// The broker hung up, as it was asked to.
    Disconnected,
}

/// The half that polls one connection to its end, and says why it ended.
pub(super) async fn poll(
    client: AsyncClient,
    mut events: EventLoop,
    filters: [String; 2],
    tell: mpsc::Sender<Heard>,
    (tap, connect): (Tap, u64),
) -> String {
    loop {
        let event = events.poll().await;
        if let Ok(event) = &event {
            count(&tap, event, &filters, connect);
        }
        let heard = match event {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                let filters =
                    filters.clone().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
                if client.try_subscribe_many(filters).is_err() {
                    return "no room for the subscription".to_owned();
                }
                continue;
            }
            Ok(MqttEvent::Incoming(Packet::SubAck(_))) => Heard::Subscribed,
            Ok(MqttEvent::Incoming(Packet::Publish(publish))) => Heard::Message(publish),
            Ok(MqttEvent::Outgoing(Outgoing::Disconnect)) => {
                // A broker that has read it hangs up. Closed before, the connection may seem lost to it.
                while events.poll().await.is_ok() {}
                drop(tell.try_send(Heard::Disconnected));
                std::future::pending().await
            }
            Ok(_) => continue,
            Err(error) => return error.to_string(),
        };
        // What finds no room is said again by the controller, or was not worth it.
        drop(tell.try_send(heard));
    }
}

/// Counts what a packet is on the wire; what is published was counted when it was said.
fn count(tap: &Tap, event: &MqttEvent, filters: &[String; 2], connect: u64) {
    match event {
        MqttEvent::Incoming(Packet::ConnAck(_)) => {
            tap.sent(connect);
            tap.received(size::ACKNOWLEDGEMENT);
        }
        MqttEvent::Incoming(Packet::SubAck(suback)) => {
            tap.received(size::suback(suback.return_codes.len()));
        }
        MqttEvent::Incoming(Packet::Publish(publish)) => {
            let is_acknowledged = publish.qos != QoS::AtMostOnce;
            tap.received(size::publish(&publish.topic, is_acknowledged, publish.payload.len()));
        }
        MqttEvent::Incoming(Packet::PubAck(_)) => tap.received(size::ACKNOWLEDGEMENT),
        MqttEvent::Incoming(_) => tap.received(size::BARE),
        MqttEvent::Outgoing(Outgoing::Subscribe(_)) => tap.sent(size::subscribe(filters)),
        MqttEvent::Outgoing(Outgoing::PubAck(_)) => tap.sent(size::ACKNOWLEDGEMENT),
        MqttEvent::Outgoing(Outgoing::PingReq | Outgoing::Disconnect) => tap.sent(size::BARE),
        MqttEvent::Outgoing(_) => {}
    }
}
