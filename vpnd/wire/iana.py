"""Every registry number that vpnd names, each with the document that assigns it.

The enums subclass `int`; a number that is not a member stays a plain `int` and survives decoding and
encoding unchanged. `name_of(enum, number)` gives the word for a log or a ladder.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

NAMES_KEPT = 1024
"""Ours: looked-up names that are remembered; a peer chooses the numbers, and honest ones are few."""


@lru_cache(NAMES_KEPT)
def name_of(registry: type[IntEnum], number: int) -> str:
    """The registry's word for `number`, or the number in decimal if the registry has none."""
    try:
        return registry(number).name
    except ValueError:
        return str(number)


class IkeVersion(IntEnum):
    """Major version in the header (RFC 2408 section 3.1, RFC 7296 section 3.1)."""

    V1 = 1
    V2 = 2


class Protocol(IntEnum):
    """Security protocol of a proposal, DELETE or notify (RFC 2407 4.4.1, RFC 7296 section 3.3.1)."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class IpProtocol(IntEnum):
    """IP protocol numbers that the datapath looks at."""

    ANY = 0
    ICMP = 1
    IPV4 = 4
    TCP = 6
    UDP = 17
    DCCP = 33
    IPV6 = 41
    GRE = 47
    ESP = 50
    AH = 51
    ICMPV6 = 58
    OSPF = 89
    PIM = 103
    VRRP = 112
    SCTP = 132
    UDPLITE = 136


# --------------------------------------------------------------------------------------- IKEv2


class Exchange2(IntEnum):
    """IKEv2 exchange types (RFC 7296 section 3.1)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43


class Payload2(IntEnum):
    """IKEv2 payload types (RFC 7296 section 3.2; SKF in RFC 7383 section 2.5)."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


class TransformType(IntEnum):
    """IKEv2 transform types (RFC 7296 section 3.3.2)."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    DH = 4
    ESN = 5


class Encr2(IntEnum):
    """IKEv2 encryption algorithms, transform type 1 (RFC 7296 3.3.2, RFC 5282, RFC 7634)."""

    DES = 2
    TRIPLE_DES = 3
    NULL = 11
    AES_CBC = 12
    AES_GCM_16 = 20
    CHACHA20_POLY1305 = 28


class Prf2(IntEnum):
    """IKEv2 pseudo-random functions, transform type 2 (RFC 7296 3.3.2, RFC 4868)."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class Integ2(IntEnum):
    """IKEv2 integrity algorithms, transform type 3 (RFC 7296 3.3.2, RFC 4868)."""

    NONE = 0
    HMAC_MD5_96 = 1
    HMAC_SHA1_96 = 2
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class DhGroup(IntEnum):
    """Diffie-Hellman groups, the same numbers in both versions (RFC 2409, 3526, 5903, 5114, 8031)."""

    NONE = 0
    MODP_768 = 1
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    MODP_2048_256 = 24
    CURVE25519 = 31


class Kem(IntEnum):
    """Key encapsulation methods, numbered among the groups (draft-ietf-ipsecme-ikev2-mlkem)."""

    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class Esn(IntEnum):
    """Extended sequence numbers, transform type 5 (RFC 7296 section 3.3.2)."""

    NO = 0
    YES = 1


class AuthMethod2(IntEnum):
    """IKEv2 authentication methods (RFC 7296 section 3.8)."""

    RSA_SIGNATURE = 1
    SHARED_KEY_MIC = 2
    DSS_SIGNATURE = 3
    ECDSA_SHA256_P256 = 9
    ECDSA_SHA384_P384 = 10
    ECDSA_SHA512_P521 = 11
    NULL = 13
    DIGITAL_SIGNATURE = 14


class Notify2(IntEnum):
    """IKEv2 notify types: below 16384 an error, from there on a status (RFC 7296 section 3.10.1)."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44

    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    MULTIPLE_AUTH_SUPPORTED = 16404
    REDIRECT_SUPPORTED = 16406
    CHILDLESS_IKEV2_SUPPORTED = 16418
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420
    FRAGMENTATION_SUPPORTED = 16430
    SIGNATURE_HASH_ALGORITHMS = 16431


class TsType(IntEnum):
    """Traffic selector types (RFC 7296 section 3.13.1)."""

    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8


# ------------------------------------------------------------------------------ both versions


class IdType(IntEnum):
    """Identification types, the same numbers in both versions (RFC 2407 4.6.2.1, RFC 7296 3.5)."""

    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV4_ADDR_SUBNET = 4
    IPV6_ADDR = 5
    IPV6_ADDR_SUBNET = 6
    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


# --------------------------------------------------------------------------------------- IKEv1


class Exchange1(IntEnum):
    """ISAKMP exchange types (RFC 2408 section 3.1, RFC 2409 section 5)."""

    IDENTITY_PROTECTION = 2
    AGGRESSIVE = 4
    INFORMATIONAL = 5
    TRANSACTION = 6
    QUICK_MODE = 32
    NEW_GROUP_MODE = 33


class Payload1(IntEnum):
    """ISAKMP payload types (RFC 2408 section 3.1; NAT-D and NAT-OA in RFC 3947)."""

    NONE = 0
    SA = 1
    PROPOSAL = 2
    TRANSFORM = 3
    KE = 4
    ID = 5
    CERT = 6
    CERTREQ = 7
    HASH = 8
    SIG = 9
    NONCE = 10
    NOTIFY = 11
    DELETE = 12
    VENDOR = 13
    NAT_D = 20
    NAT_OA = 21
    NAT_D_DRAFT = 130
    NAT_OA_DRAFT = 131
    FRAGMENT = 132


class TransformId1(IntEnum):
    """The one phase-1 transform identifier (RFC 2407 section 4.4.2)."""

    KEY_IKE = 1


class Phase1Attribute(IntEnum):
    """Phase-1 SA attributes (RFC 2409 appendix A)."""

    ENCRYPTION = 1
    HASH = 2
    AUTHENTICATION_METHOD = 3
    GROUP = 4
    GROUP_TYPE = 5
    GROUP_PRIME = 6
    GROUP_GENERATOR_ONE = 7
    GROUP_GENERATOR_TWO = 8
    GROUP_CURVE_A = 9
    GROUP_CURVE_B = 10
    LIFE_TYPE = 11
    LIFE_DURATION = 12
    PRF = 13
    KEY_LENGTH = 14
    FIELD_SIZE = 15
    GROUP_ORDER = 16


class Phase2Attribute(IntEnum):
    """Phase-2 SA attributes (RFC 2407 section 4.5, RFC 3168 section 9.2, RFC 4304, RFC 4359)."""

    LIFE_TYPE = 1
    LIFE_DURATION = 2
    GROUP = 3
    ENCAPSULATION_MODE = 4
    AUTHENTICATION = 5
    KEY_LENGTH = 6
    KEY_ROUNDS = 7
    COMPRESS_DICTIONARY_SIZE = 8
    COMPRESS_PRIVATE_ALGORITHM = 9
    ECN_TUNNEL = 10
    ESN = 11
    AUTHENTICATION_KEY_LENGTH = 12
    SIGNATURE_ENCODING = 13


class Encr1(IntEnum):
    """Phase-1 encryption algorithms (RFC 2409 appendix A; SM4 by GM/T 0022)."""

    DES_CBC = 1
    TRIPLE_DES_CBC = 5
    AES_CBC = 7
    SM4_CBC = 129


class Hash1(IntEnum):
    """Phase-1 hash algorithms (RFC 2409 appendix A, RFC 4868; SM3 by GM/T 0022)."""

    MD5 = 1
    SHA1 = 2
    SHA2_256 = 4
    SHA2_384 = 5
    SHA2_512 = 6
    SM3 = 20


class EspTransform1(IntEnum):
    """Phase-2 ESP transform identifiers (RFC 2407 section 4.4.4, RFC 3602, RFC 4106)."""

    DES = 2
    TRIPLE_DES = 3
    NULL = 11
    AES_CBC = 12
    AES_GCM_16 = 20
    SM4_CBC = 129


class EspAuth1(IntEnum):
    """Phase-2 authentication algorithms (RFC 2407 section 4.5, RFC 4868; SM3 by GM/T 0022)."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7
    HMAC_SM3 = 20


class AuthMethod1(IntEnum):
    """Phase-1 authentication methods (RFC 2409 appendix A)."""

    PRE_SHARED_KEY = 1
    DSS_SIGNATURE = 2
    RSA_SIGNATURE = 3
    RSA_ENCRYPTION = 4
    RSA_ENCRYPTION_REVISED = 5
    XAUTH_INIT_PRE_SHARED_KEY = 65001


class LifeType(IntEnum):
    """Life types, the same in both phases (RFC 2407 section 4.5, RFC 2409 appendix A)."""

    SECONDS = 1
    KILOBYTES = 2


class EncapsulationMode(IntEnum):
    """Phase-2 encapsulation modes (RFC 2407 section 4.5, RFC 3947 section 5.1)."""

    TUNNEL = 1
    TRANSPORT = 2
    UDP_TUNNEL = 3
    UDP_TRANSPORT = 4
    UDP_TUNNEL_DRAFT = 61443


class Notify1(IntEnum):
    """ISAKMP notify types (RFC 2408 section 3.14.1, RFC 2407 section 4.6.3, RFC 3706)."""

    INVALID_PAYLOAD_TYPE = 1
    DOI_NOT_SUPPORTED = 2
    SITUATION_NOT_SUPPORTED = 3
    INVALID_COOKIE = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_MINOR_VERSION = 6
    INVALID_EXCHANGE_TYPE = 7
    INVALID_FLAGS = 8
    INVALID_MESSAGE_ID = 9
    INVALID_PROTOCOL_ID = 10
    INVALID_SPI = 11
    INVALID_TRANSFORM_ID = 12
    ATTRIBUTES_NOT_SUPPORTED = 13
    NO_PROPOSAL_CHOSEN = 14
    BAD_PROPOSAL_SYNTAX = 15
    PAYLOAD_MALFORMED = 16
    INVALID_KEY_INFORMATION = 17
    INVALID_ID_INFORMATION = 18
    INVALID_CERT_ENCODING = 19
    INVALID_CERTIFICATE = 20
    CERT_TYPE_UNSUPPORTED = 21
    INVALID_CERT_AUTHORITY = 22
    INVALID_HASH_INFORMATION = 23
    AUTHENTICATION_FAILED = 24
    INVALID_SIGNATURE = 25
    ADDRESS_NOTIFICATION = 26
    NOTIFY_SA_LIFETIME = 27
    UNEQUAL_PAYLOAD_LENGTHS = 30

    CONNECTED = 16384
    RESPONDER_LIFETIME = 24576
    REPLAY_STATUS = 24577
    INITIAL_CONTACT = 24578
    R_U_THERE = 36136
    R_U_THERE_ACK = 36137
