//! The report as it is sent.

/// Numbers of fields in `xds.data.orca.v3.OrcaLoadReport`, all of type `double`.
const RPS_FRACTIONAL: u8 = 6;
const EPS: u8 = 7;
const APPLICATION_UTILIZATION: u8 = 9;

/// The wire type of eight bytes.
const FIXED64: u8 = 1;

/// An `OrcaLoadReport`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Report {
    /// Per second.
    pub(super) calls: f64,
    /// Per second.
    pub(super) faults: f64,
    pub(super) utilization: f64,
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = [
            (RPS_FRACTIONAL, self.calls),
            (EPS, self.faults),
            (APPLICATION_UTILIZATION, self.utilization),
        ];
        let mut bytes = Vec::with_capacity(fields.len() * 9);
        // As in proto3, nothing stands for zero.
        for (number, value) in fields.into_iter().filter(|it| it.1 != 0.0) {
            bytes.push(number << 3 | FIXED64);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use touchdown::protobuf::well_known_types::empty::Empty;
    use touchdown::protobuf::{Message, UnknownValueRef};

    use super::*;

    #[test]
    fn it_is_read_as_protobuf() {
        let report = Report {
            calls: 120.5,
            faults: 0.0,
            utilization: 1.75,
        };
        let read = Empty::parse_from_bytes(&report.encode()).unwrap();
        let fields = read.special_fields.unknown_fields();
        let double = |number| match fields.get(number) {
            Some(UnknownValueRef::Fixed64(bits)) => Some(f64::from_bits(bits)),
            _ => None,
        };
        assert_eq!([6, 7, 9].map(double), [Some(120.5), None, Some(1.75)]);
        assert_eq!(fields.iter().count(), 2);
        assert!(Report::default().encode().is_empty());
    }
}
